// HttpParser: bytes to requests, without sockets (Boost.Beast's parser inside). Refuses what smuggling is made of: two
// lengths, a length beside chunks, bare line feeds, obsolete folding of anything but white space.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "octet/server/http_message.h"

namespace octet {

// Why a request cannot be read. The connection ends after the answer.
struct HttpParseError {
  int status = 400;  // 400, 413 (body too large), 431 (headers too large), 505 (not HTTP/1)
  std::string text;
};

class HttpParser {
 public:
  explicit HttpParser(const HttpLimits& limits);
  ~HttpParser();
  HttpParser(const HttpParser&) = delete;
  HttpParser& operator=(const HttpParser&) = delete;

  enum class State : uint8_t { kHead, kBody, kDone, kFailed };
  // Reads from `bytes` and returns how many were used; the rest, followed by what comes next, is to be given again.
  // Stops at the end of the head (state kBody or kDone) and of the body.
  size_t feed(std::string_view bytes);
  State state() const;
  const HttpParseError& error() const { return error_; }

  // From the end of the head on; the body is taken with take_request().
  HttpRequest& request() { return request_; }
  // Content-Length, nothing for a body in chunks; 0 when there is none.
  std::optional<int64_t> content_length() const;
  bool expects_continue() const;
  // kDone: the request with its body.
  HttpRequest take_request();

 private:
  struct Beast;
  void fail_with(int status, std::string text);
  void read_head();

  HttpLimits limits_;
  std::unique_ptr<Beast> beast_;
  HttpRequest request_;
  HttpParseError error_;
  State state_ = State::kHead;
};

// "/a%20b?x" to path "/a b" and query "x"; absolute forms lose scheme and host, a trailing '/' goes. False for targets
// that are none.
bool split_target(std::string_view target, std::string& path, std::string& query);

}  // namespace octet
