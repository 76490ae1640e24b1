#include "octet/server/api_error.h"

#include "octet/base/log.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

const char* type_of(int status, std::string_view code) {
  if (code == "not_supported_error") return "not_supported_error";
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return code == "model_not_found" ? "not_found_error" : "invalid_request_error";
    case 413:
      return "request_too_large";
    case 503:
      return code == "unavailable" ? "unavailable_error" : "server_overloaded";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

const char* anthropic_type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

constexpr size_t kMaxMessageBytes = 1000;

}  // namespace

ApiError::ApiError(int status_in, std::string code_in, const std::string& message, std::optional<std::string> param_in)
    : std::runtime_error(shortened(message, kMaxMessageBytes)),
      status(status_in),
      type(type_of(status_in, code_in)),
      code(std::move(code_in)),
      param(std::move(param_in)) {
  if (status == 503) headers.emplace_back("Retry-After", "1");
  if (status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
}

Json ApiError::body(ErrorWording wording) const {
  const bool anthropic = wording == ErrorWording::kAnthropic;
  Json error = {
      {"message", what()}, {"type", anthropic ? anthropic_type_of(status) : type}, {"param", nullptr}, {"code", code}};
  if (param) error["param"] = shortened(*param);
  error.update(extra);
  Json body = Json::object();
  if (anthropic) body["type"] = "error";
  body["error"] = std::move(error);
  return body;
}

ApiError api_error_of(const std::exception& error) {
  if (const auto* known = dynamic_cast<const ApiError*>(&error)) return *known;
  const auto* own = dynamic_cast<const Error*>(&error);
  if (own && (own->code() == ErrorCode::kInvalid || own->code() == ErrorCode::kUsage)) {
    return {400, "invalid_value", own->what()};
  }
  if (own && own->code() == ErrorCode::kUnsupported) return {400, "not_supported_error", own->what()};
  log_line(LogLevel::kError, fmt::format("a request failed: {}", error.what()));
  ApiError internal(500, "internal_error", "The server failed to answer; its log says why.");
  internal.headers.emplace_back("x-should-retry", "false");
  return internal;
}

std::string dump_line(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto escape = [&](std::string_view bytes, std::string_view escaped) {
    for (size_t at = text.find(bytes); at != text.npos; at = text.find(bytes, at + escaped.size())) {
      text.replace(at, bytes.size(), escaped);
    }
  };
  if (text.find('\xE2') != text.npos) {
    escape("\xE2\x80\xA8", "\\u2028");
    escape("\xE2\x80\xA9", "\\u2029");
  }
  if (text.find('\xC2') != text.npos) escape("\xC2\x85", "\\u0085");
  return text;
}

std::string shortened(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return utf8::repair_lossy(text);
  std::string_view kept = text.substr(0, max_bytes);
  kept = kept.substr(0, utf8::valid_prefix(kept));
  return utf8::repair_lossy(kept) + "...";
}

HttpResponse json_response(int status, const Json& body) {
  return {.status = status, .headers = {{"Content-Type", "application/json"}}, .body = dump_line(body)};
}

HttpResponse error_response(const ApiError& error, ErrorWording wording) {
  HttpResponse response = json_response(error.status, error.body(wording));
  for (const auto& header : error.headers) response.headers.push_back(header);
  return response;
}

}  // namespace octet
