// HttpServer: listens, keeps connections within limits, hands requests to an HttpApp and answers back. HTTP/1.1 with
// keep-alive, pipelining, chunked streams; one I/O thread (Boost.Asio). It knows nothing of what is served.
//
// A client that closes its connection, or its sending half, before the answer is complete has left: on_gone. A stream
// whose client takes nothing for HttpLimits::write_timeout ends the same way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "octet/server/http_message.h"
#include "octet/server/http_reply.h"
#include "octet/server/tls.h"

namespace octet {

struct HttpOutcome {
  int status = 0;  // 499: the client left first
  int64_t response_bytes = 0;
  std::chrono::microseconds duration{0};
};

// What is served. All methods are called on the I/O thread and must be quick.
class HttpApp {
 public:
  virtual ~HttpApp() = default;
  // An answer to a request of which only the head is known; nothing: go on and read the body.
  virtual std::optional<HttpResponse> check_head(const HttpRequest& request) = 0;
  virtual void serve(std::shared_ptr<HttpRequest> request, std::shared_ptr<HttpReply> reply) = 0;
  // The answer to what is no request, or breaks a limit.
  virtual HttpResponse refuse(int status, const std::string& text) = 0;
  virtual void done(const HttpRequest& request, const HttpOutcome& outcome) = 0;
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;     // 0: any free one
  std::string unix_socket;  // a path: instead of host and port
  HttpLimits limits;
  TlsOptions tls;
};

class HttpServer {
 public:
  // Listens at once; accepts from the call of run() on. Throws Error{kIo} naming the address, and what TlsCredentials
  // throws. `app` outlives this.
  HttpServer(const HttpServerOptions& options, HttpApp& app);
  ~HttpServer();  // closes every connection; on_gone is called for those that were served
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  // Ends the I/O thread after what has been answered was sent, or after `patience`.
  void stop(std::chrono::milliseconds patience);
  // "http://127.0.0.1:8000", "https://127.0.0.1:8000" or "unix:/path".
  std::string url() const;
  uint16_t port() const;
  int64_t num_connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
