// ApiError: a request's failure as the OpenAI API words it, thrown by what reads requests and caught where routes run.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "octet/base/error.h"
#include "octet/base/json.h"
#include "octet/server/http_message.h"

namespace octet {

// kOpenAi: {"error": {"message", "type", "param", "code"}}. kAnthropic: {"type": "error", "error": {"type", "message"}}
// with OpenAI's further members.
enum class ErrorWording : uint8_t { kOpenAi, kAnthropic };

class ApiError : public std::runtime_error {
 public:
  ApiError(int status_in, std::string code_in, const std::string& message,
           std::optional<std::string> param_in = std::nullopt);

  int status = 400;
  std::string type;  // follows from the status: invalid_request_error, server_error, ...
  std::string code;  // "invalid_value", "model_not_found", ...
  std::optional<std::string> param;
  Json extra = Json::object();  // further members of the error object
  HttpHeaders headers;

  Json body(ErrorWording wording = ErrorWording::kOpenAi) const;
};

// A field of a request is wrong: 400 invalid_value with its name.
template <class... Args>
[[noreturn]] void fail_field(const std::string& param, fmt::format_string<Args...> format, Args&&... args) {
  throw ApiError(400, "invalid_value", param + ": " + fmt::format(format, std::forward<Args>(args)...), param);
}
// A field asks for what octet does not do.
template <class... Args>
[[noreturn]] void fail_unsupported(const std::string& param, fmt::format_string<Args...> format, Args&&... args) {
  throw ApiError(400, "not_supported_error", param + ": " + fmt::format(format, std::forward<Args>(args)...), param);
}

// What an exception that a request met is for its client. Faults of octet itself are logged, not shown.
ApiError api_error_of(const std::exception& error);

HttpResponse json_response(int status, const Json& body);
HttpResponse error_response(const ApiError& error, ErrorWording wording = ErrorWording::kOpenAi);

// One line of valid UTF-8: bad bytes replaced, U+2028, U+2029 and U+0085 (line ends to some clients) escaped.
std::string dump_line(const Json& json);
// What a message may show of what a client sent.
std::string shortened(std::string_view text, size_t max_bytes = 200);

}  // namespace octet
