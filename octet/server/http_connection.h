// HttpConnection: one client's socket. Everything here runs on the I/O thread; a connection is a state machine that
// waits for its socket to be readable or writable and for one deadline.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "octet/server/http_exchange.h"
#include "octet/server/http_parser.h"
#include "octet/server/http_server.h"
#include "octet/server/tls.h"

namespace octet {

class HttpConnection;

// What the connections of a server share.
struct HttpCore : std::enable_shared_from_this<HttpCore> {
  HttpCore(const HttpLimits& limits_in, HttpApp& app_in) : limits(limits_in), app(app_in) {}
  // From any thread: the exchange's connection shall look at it.
  void wake(std::shared_ptr<HttpExchange> exchange);

  const HttpLimits limits;
  HttpApp& app;
  boost::asio::io_context io{1};
  std::atomic<int64_t> num_connections{0};
  std::atomic<int64_t> buffered_body_bytes{0};

  // Of the I/O thread.
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  std::array<char, size_t{64} << 10> scratch{};  // what was just read
  bool stopping = false;

  std::mutex wake_mutex;  // guards woken
  std::vector<std::shared_ptr<HttpExchange>> woken;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Clock = std::chrono::steady_clock;

  // `tls`: of the socket, or nullptr.
  HttpConnection(std::shared_ptr<HttpCore> core, Socket socket, std::unique_ptr<TlsSession> tls, std::string peer);
  void start();
  // Sends what the exchange has, if it is the one being served.
  void pump(const HttpExchange& exchange);
  // The server stops: ends at once when nothing is being served, else after the answer.
  void stop();
  void close();

 private:
  enum class State : uint8_t { kHead, kBody, kServing, kLingering, kClosed };

  // As the socket's, through TLS if there is any; also set what the socket is to be waited for next.
  size_t read_some(boost::system::error_code& error);
  size_t write_some(boost::system::error_code& error);
  void wait_readable();
  void on_readable();
  void proceed();
  bool process_step();
  void on_head();
  bool reserve_body();
  void dispatch();
  void answer(HttpResponse response);
  void refuse(int status, const std::string& text);
  void serve_exchange(std::shared_ptr<HttpRequest> request);
  void flush();
  void end_exchange();
  void linger();
  void set_deadline(Clock::time_point deadline);
  void on_timeout();

  std::shared_ptr<HttpCore> core_;
  Socket socket_;
  std::unique_ptr<TlsSession> tls_;
  Socket::wait_type read_wait_ = Socket::wait_read, write_wait_ = Socket::wait_write;
  const std::string peer_;
  boost::asio::steady_timer timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point timer_expiry_ = Clock::time_point::max();

  State state_ = State::kHead;
  std::string in_;   // read, not yet parsed
  std::string out_;  // to be written from out_offset_ on
  size_t out_offset_ = 0;
  std::optional<HttpParser> parser_;
  Clock::time_point arrival_;
  std::optional<HttpResponse> early_;  // the answer that is known before the body has come
  std::shared_ptr<HttpExchange> exchange_;
  int64_t exchange_bytes_ = 0, lingered_bytes_ = 0;
  bool reading_ = false, writing_ = false, processing_ = false, input_ended_ = false;
};

}  // namespace octet
