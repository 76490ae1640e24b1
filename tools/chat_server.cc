#include "tools/chat_server.h"

#include <curl/curl.h>

#include <memory>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr size_t kMaxReplyBytes = size_t{64} << 20;

struct Transfer {
  std::function<void(std::string_view)> on_bytes;
  std::function<bool()> stop;
};

extern "C" size_t take_bytes(char* bytes, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  try {
    transfer->on_bytes(std::string_view(bytes, size * count));
  } catch (...) {
    return 0;  // curl reports a write error; exceptions may not pass through C
  }
  return size * count;
}

extern "C" int check_stop(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(user)->stop() ? 1 : 0;
}

struct HttpRequest {
  std::string url;
  std::string api_key;
  const std::string* body = nullptr;  // POST when set
};

// Returns the HTTP status; 0 when `stop` ended the transfer.
long perform(const HttpRequest& request, Transfer transfer) {
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!request.api_key.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + request.api_key).c_str());
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
  curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, take_bytes);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, check_stop);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  if (request.body) curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, request.body->c_str());
  const CURLcode result = curl_easy_perform(curl.get());
  if (result == CURLE_ABORTED_BY_CALLBACK) return 0;
  if (result != CURLE_OK) fail(ErrorCode::kIo, "{}: {}", request.url, curl_easy_strerror(result));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
}

std::string message_of(const std::string& reply) {
  const Json json = Json::parse(reply, nullptr, false);
  if (json.is_object() && json.contains("error")) {
    const Json& error = json["error"];
    if (error.is_object() && error.contains("message") && error["message"].is_string()) return error["message"];
    return error.dump();
  }
  return reply.substr(0, 300);
}

// Server-sent events: "data: {json}" lines; "[DONE]" ends.
class EventReader {
 public:
  explicit EventReader(std::function<void(const std::string&)> on_text) : on_text_(std::move(on_text)) {}
  void take(std::string_view bytes) {
    raw_ += bytes;
    if (raw_.size() > kMaxReplyBytes)
      fail(ErrorCode::kIo, "the server's answer is larger than {} bytes", kMaxReplyBytes);
    for (size_t end; (end = raw_.find('\n', at_)) != std::string::npos; at_ = end + 1)
      take_line(raw_.substr(at_, end - at_));
  }
  const std::string& raw() const { return raw_; }

 private:
  void take_line(const std::string& line) {
    if (line.rfind("data: {", 0) != 0) return;
    const Json json = Json::parse(line.substr(6), nullptr, false);
    if (!json.is_object() || !json.contains("choices") || !json["choices"].is_array() || json["choices"].empty())
      return;
    const Json delta = json["choices"][0].value("delta", Json::object());
    if (delta.is_object() && delta.contains("content") && delta["content"].is_string()) on_text_(delta["content"]);
  }

  std::function<void(const std::string&)> on_text_;
  std::string raw_;
  size_t at_ = 0;
};

}  // namespace

ChatServer::ChatServer(ChatServerOptions options) : options_(std::move(options)) {
  while (!options_.url.empty() && options_.url.back() == '/') options_.url.pop_back();
  if (options_.model.empty()) options_.model = first_model();
}

std::string ChatServer::first_model() {
  std::string reply;
  const std::string url = options_.url + "/models";
  const long status =
      perform({.url = url, .api_key = options_.api_key},
              {.on_bytes = [&](std::string_view bytes) { reply += bytes; }, .stop = [] { return false; }});
  const Json json = Json::parse(reply, nullptr, false);
  if (status != 200 || !json.is_object() || !json.contains("data") || !json["data"].is_array() ||
      json["data"].empty() || !json["data"][0].is_object() || !json["data"][0].contains("id") ||
      !json["data"][0]["id"].is_string()) {
    fail(ErrorCode::kIo, "{}: HTTP {}: no list of models: {}", url, status, message_of(reply));
  }
  return json["data"][0]["id"];
}

std::string ChatServer::answer(const Json& messages, const SamplingParams& params,
                               const std::function<void(std::string_view)>& on_text,
                               const std::function<bool()>& stop) {
  Json request = {{"model", options_.model},
                  {"messages", messages},
                  {"stream", true},
                  {"temperature", params.temperature},
                  {"top_p", params.top_p}};
  if (params.max_tokens) request["max_tokens"] = *params.max_tokens;
  if (!params.stop.empty()) request["stop"] = params.stop;
  if (params.seed) request["seed"] = *params.seed;
  const std::string body = request.dump();
  std::string text;
  EventReader reader([&](const std::string& piece) {
    text += piece;
    on_text(piece);
  });
  const std::string url = options_.url + "/chat/completions";
  const long status = perform({.url = url, .api_key = options_.api_key, .body = &body},
                              {.on_bytes = [&](std::string_view bytes) { reader.take(bytes); }, .stop = stop});
  if (status != 0 && status != 200) fail(ErrorCode::kIo, "{}: HTTP {}: {}", url, status, message_of(reader.raw()));
  return text;
}

}  // namespace octet
