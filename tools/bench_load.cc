#include "tools/bench_load.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "octet/base/error.h"

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxErrorBytes = 4096;
constexpr size_t kMaxLineBytes = size_t{16} << 20;
constexpr long kTimeoutSeconds = 6 * 3600;

using Easy = std::unique_ptr<CURL, void (*)(CURL*)>;
struct FreeHeaders {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Headers = std::unique_ptr<curl_slist, FreeHeaders>;
struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using Multi = std::unique_ptr<CURLM, FreeMulti>;

Easy make_easy() {
  Easy easy(curl_easy_init(), curl_easy_cleanup);
  if (!easy) fail(ErrorCode::kInternal, "curl_easy_init failed");
  return easy;
}

void set_common(CURL* curl, const LoadTarget& target, curl_slist* headers) {
  curl_easy_setopt(curl, CURLOPT_URL, target.url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  if (target.verify_certificate) return;
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
}

Headers headers_of(const LoadTarget& target) {
  Headers headers;
  const auto append = [&](const std::string& header) {
    headers.reset(curl_slist_append(headers.release(), header.c_str()));
  };
  append("Content-Type: application/json");
  append("Expect:");  // no second round trip for long bodies
  for (const std::string& header : target.headers) append(header);
  return headers;
}

// One request under way: takes the bytes of its answer.
class Transfer {
 public:
  Transfer(const LoadTarget& target, curl_slist* headers);

  void begin(const LoadRequest& request, LoadResult& result, Clock::time_point origin);
  void take(std::string_view bytes);
  // Fills in what the end decides.
  void end(CURLcode code);
  CURL* curl() const { return curl_.get(); }

 private:
  void take_line(std::string_view line);
  void take_choices(const Json& choices);
  double now() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  const Easy curl_ = make_easy();
  LoadResult* result_ = nullptr;
  Clock::time_point origin_;
  double last_ = 0;      // when the last event with choices came
  std::string pending_;  // of a line, or of an answer that is no stream
};

extern "C" size_t take_load_bytes(char* bytes, size_t size, size_t count, void* user) {
  try {
    static_cast<Transfer*>(user)->take(std::string_view(bytes, size * count));
  } catch (...) {
    return 0;  // curl reports a write error; exceptions may not pass through C
  }
  return size * count;
}

Transfer::Transfer(const LoadTarget& target, curl_slist* headers) {
  CURL* curl = curl_.get();
  set_common(curl, target, headers);
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT, kTimeoutSeconds);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_load_bytes);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(curl, CURLOPT_PRIVATE, this);
}

void Transfer::begin(const LoadRequest& request, LoadResult& result, Clock::time_point origin) {
  result_ = &result;
  origin_ = origin;
  pending_.clear();
  curl_easy_setopt(curl(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  curl_easy_setopt(curl(), CURLOPT_POSTFIELDS, request.body.data());
  result.due = request.at;
  result.start = last_ = now();
}

void Transfer::take(std::string_view bytes) {
  long& status = result_->status;
  if (status == 0) curl_easy_getinfo(curl(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) {
    pending_ += bytes.substr(0, kMaxErrorBytes - std::min(pending_.size(), kMaxErrorBytes));
    return;
  }
  pending_ += bytes;
  size_t begin = 0;
  for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    take_line(std::string_view(pending_).substr(begin, end - begin));
  }
  pending_.erase(0, begin);
  if (pending_.size() > kMaxLineBytes) fail(ErrorCode::kIo, "a line of the answer is larger than {}", kMaxLineBytes);
}

void Transfer::take_line(std::string_view line) {
  if (!line.starts_with("data:")) return;
  const Json event = Json::parse(line.substr(5), nullptr, false);
  if (!event.is_object()) return;  // [DONE]
  if (const auto error = event.find("error"); error != event.end()) result_->error = error->dump();
  const auto choices = event.find("choices");
  if (choices != event.end() && choices->is_array() && !choices->empty()) take_choices(*choices);
  const auto usage = event.find("usage");
  if (usage == event.end() || !usage->is_object()) return;
  const auto count = usage->find("completion_tokens");
  if (count != usage->end() && count->is_number_integer()) result_->num_output_tokens = count->get<int64_t>();
}

void Transfer::take_choices(const Json& choices) {
  const double at = now();
  if (result_->success) {
    result_->itls.push_back(at - last_);
  } else {
    result_->success = true;
    result_->ttft = at - result_->start;
  }
  last_ = at;
  result_->latency = at - result_->start;
  const Json& choice = choices.front();
  if (!choice.is_object()) return;
  const auto delta = choice.find("delta");
  const Json& said = delta != choice.end() ? *delta : choice;
  if (!said.is_object()) return;
  for (const char* key : {"text", "reasoning_content", "content"}) {
    const auto text = said.find(key);
    if (text != said.end() && text->is_string()) result_->text += text->get_ref<const std::string&>();
  }
}

void Transfer::end(CURLcode code) {
  std::string& error = result_->error;
  if (code != CURLE_OK) {
    error = curl_easy_strerror(code);
  } else if (result_->status != 200) {
    error = fmt::format("HTTP {}: {}", result_->status, pending_);
  } else if (error.empty() && !result_->success) {
    error = "the answer had no event with choices";
  }
  result_->success = error.empty();
}

// Sends what is due and takes what comes until all is answered.
class Driver {
 public:
  Driver(const LoadTarget& target, const std::vector<LoadRequest>& requests, const LoadOptions& options)
      : target_(target),
        requests_(requests),
        options_(options),
        results_(requests.size()),
        headers_(headers_of(target)),
        multi_(curl_multi_init()) {
    if (!multi_) fail(ErrorCode::kInternal, "curl_multi_init failed");
    // Connections are kept for later requests.
    curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, static_cast<long>(requests.size()));
  }
  ~Driver() {
    for (const auto& transfer : transfers_) curl_multi_remove_handle(multi_.get(), transfer->curl());
  }

  std::vector<LoadResult> run() {
    while (num_done_ < requests_.size()) {
      start_due();
      int running = 0;
      if (curl_multi_perform(multi_.get(), &running) != CURLM_OK) fail(ErrorCode::kIo, "curl_multi_perform failed");
      const size_t before = num_done_;
      collect();
      if (num_done_ != before && options_.on_progress) options_.on_progress(static_cast<int64_t>(num_done_));
      if (num_done_ == before) wait();
    }
    return std::move(results_);
  }

 private:
  bool has_room() const {
    const auto active = static_cast<int64_t>(num_started_ - num_done_);
    return options_.max_concurrency <= 0 || active < options_.max_concurrency;
  }
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  void start_due() {
    while (num_started_ < requests_.size() && has_room() && requests_[num_started_].at <= elapsed()) {
      if (idle_.empty()) {
        transfers_.push_back(std::make_unique<Transfer>(target_, headers_.get()));
        idle_.push_back(transfers_.back().get());
      }
      Transfer* transfer = idle_.back();
      idle_.pop_back();
      transfer->begin(requests_[num_started_], results_[num_started_], origin_);
      curl_multi_add_handle(multi_.get(), transfer->curl());
      ++num_started_;
    }
  }

  void collect() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CURL* curl = message->easy_handle;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(curl, CURLINFO_PRIVATE, &transfer);
      transfer->end(code);
      curl_multi_remove_handle(multi_.get(), curl);
      idle_.push_back(transfer);
      ++num_done_;
    }
  }

  void wait() {
    constexpr double kLongest = 1.0;
    double seconds = kLongest;
    if (num_started_ < requests_.size() && has_room()) {
      seconds = std::clamp(requests_[num_started_].at - elapsed(), 0.0, kLongest);
    }
    curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(seconds * 1e3), nullptr);
  }

  const LoadTarget& target_;
  const std::vector<LoadRequest>& requests_;
  const LoadOptions& options_;
  std::vector<LoadResult> results_;
  const Headers headers_;
  const Multi multi_;
  std::vector<std::unique_ptr<Transfer>> transfers_;
  std::vector<Transfer*> idle_;
  size_t num_started_ = 0, num_done_ = 0;
  const Clock::time_point origin_ = Clock::now();
};

extern "C" size_t append_bytes(char* bytes, size_t size, size_t count, void* user) {
  static_cast<std::string*>(user)->append(bytes, size * count);
  return size * count;
}

}  // namespace

std::vector<LoadResult> run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests,
                                 const LoadOptions& options) {
  return Driver(target, requests, options).run();
}

Json get_json(const LoadTarget& target) {
  const Easy curl = make_easy();
  const Headers headers = headers_of(target);
  std::string body;
  set_common(curl.get(), target, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, 60L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, append_bytes);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) fail(ErrorCode::kIo, "{}: {}", target.url, curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  Json json = Json::parse(body, nullptr, false);
  if (status != 200 || json.is_discarded()) {
    fail(ErrorCode::kIo, "{}: HTTP {}: {}", target.url, status, body.substr(0, kMaxErrorBytes));
  }
  return json;
}

}  // namespace octet
