// What an HTTP/1.1 exchange consists of: a request as it came, a response as it goes. Knows nothing of what is served.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace octet {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // as sent: "GET"
  std::string path;     // percent-decoded, without query; always begins with '/', ends with one only if it is "/"
  std::string query;    // what follows '?', as sent
  HttpHeaders headers;  // names in lower case, in order
  std::string body;
  bool keep_alive = true;  // what the client asks for
  bool http_1_0 = false;
  std::string peer;  // "127.0.0.1:4711", or "unix"
  std::chrono::steady_clock::time_point arrival;
  std::shared_ptr<void> body_reservation;  // room for the body, given back with the last reference

  // The first header of this (lower-case) name; empty when there is none.
  std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;
  std::string body;
  bool close = false;  // end the connection after it
};

// The standard phrase of a status ("Not Found"), or "Status".
std::string_view reason_phrase(int status);

struct HttpLimits {
  int64_t max_body_bytes = int64_t{32} << 20;
  int64_t max_buffered_body_bytes = int64_t{1} << 30;  // of all connections together
  int64_t max_header_bytes = int64_t{64} << 10;
  int64_t max_headers = 256;
  int64_t max_connections = 16384;
  size_t stream_buffer_bytes = size_t{64} << 10;   // of a stream whose reader is slow; then writable() says no
  std::chrono::milliseconds head_timeout{10'000};  // from a request's first byte to the end of its headers
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds idle_timeout{75'000};
  std::chrono::milliseconds write_timeout{60'000};  // without the client taking a single byte
};

}  // namespace octet
