// HttpReply: how a route answers one request, from any thread, at once or piece by piece. All methods are thread-safe
// and never wait; what comes after the client has left is dropped.
#pragma once

#include <functional>
#include <string_view>

#include "octet/server/http_message.h"

namespace octet {

// Called on the server's I/O thread, so they must be quick; each may be empty. Kept until the whole answer has been
// taken or the client has left, then destroyed: what they hold lives as long.
struct HttpReplyEvents {
  std::function<void()> on_gone;     // once: the client left before the answer was complete
  std::function<void()> on_drained;  // after writable() said no: there is room again
};

class HttpReply {
 public:
  virtual ~HttpReply() = default;
  // The whole answer.
  virtual void send(HttpResponse response) = 0;
  // Or: status and headers (response.body is the first piece), then pieces, then the end.
  virtual void start(HttpResponse response) = 0;
  virtual void write(std::string_view bytes) = 0;
  virtual void finish() = 0;
  // Whether the client keeps up: false while HttpLimits::stream_buffer_bytes wait for it.
  virtual bool writable() = 0;
  virtual void watch(HttpReplyEvents events) = 0;
};

}  // namespace octet
