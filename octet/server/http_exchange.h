// HttpExchange: the HttpReply of a connection. Routes put answers in from any thread; the connection takes them out as
// bytes for the wire, on the I/O thread.
#pragma once

#include <mutex>
#include <string>

#include "octet/server/http_reply.h"

namespace octet {

class HttpConnection;

class HttpExchange final : public HttpReply, public std::enable_shared_from_this<HttpExchange> {
 public:
  // `wake`: asks the I/O thread to take what there is; called from any thread, outside locks.
  using Wake = std::function<void(std::shared_ptr<HttpExchange>)>;
  HttpExchange(std::shared_ptr<const HttpRequest> request, size_t buffer_bytes,
               std::weak_ptr<HttpConnection> connection, Wake wake);

  void send(HttpResponse response) override;
  void start(HttpResponse response) override;
  void write(std::string_view bytes) override;
  void finish() override;
  bool writable() override;
  void watch(HttpReplyEvents events) override;

  // The rest is the connection's, on the I/O thread.

  // Appends what waits to `out`. on_drained is called when writable() had said no.
  void take(std::string& out);
  // Everything has been taken.
  bool complete() const;
  // An answer or its last piece is known, taken or not.
  bool answered() const;
  // The client has left, or the connection ends: nothing more goes out, on_gone is called unless the answer is
  // complete.
  void leave();
  bool closes() const;  // the connection ends after this answer
  void close_after();   // makes it so
  int status() const;
  const std::shared_ptr<const HttpRequest>& request() const { return request_; }
  const std::weak_ptr<HttpConnection>& connection() const { return connection_; }

 private:
  void begin(HttpResponse response, bool whole);
  void append_head(std::string& out);
  void append_piece(std::string& out);

  const std::shared_ptr<const HttpRequest> request_;
  const size_t buffer_bytes_;
  const std::weak_ptr<HttpConnection> connection_;
  const Wake wake_;

  mutable std::mutex mutex_;  // guards all below; never held while an event or wake is called
  HttpReplyEvents events_;
  HttpResponse response_;
  std::string pending_;  // pieces not yet taken
  bool begun_ = false, whole_ = false, head_taken_ = false, finished_ = false, complete_ = false;
  bool left_ = false, full_ = false, closes_ = false;
  bool woken_ = false;  // a wake is under way
};

}  // namespace octet
