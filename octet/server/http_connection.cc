#include "octet/server/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

namespace octet {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::seconds;

constexpr size_t kMaxUnparsedBytes = size_t{128} << 10;  // pipelined requests beyond are left in the socket
constexpr int64_t kMaxDrainedBody = int64_t{256} << 10;  // bodies up to this are read for the connection's sake
constexpr int64_t kMaxLingerBytes = int64_t{256} << 20;  // dropped after an early answer, so that it arrives
constexpr seconds kLingerTimeout{10};
constexpr size_t kKeptCapacity = size_t{64} << 10;
constexpr int kReadsPerWake = 8;  // then it is the other connections' turn

bool has_to_wait(const error_code& error) {
  return error == asio::error::would_block || error == asio::error::try_again || error == asio::error::interrupted;
}

error_code error_of(TlsSession::Outcome outcome) {
  switch (outcome) {
    case TlsSession::Outcome::kDone:
      return {};
    case TlsSession::Outcome::kWantsRead:
    case TlsSession::Outcome::kWantsWrite:
      return asio::error::would_block;
    case TlsSession::Outcome::kEnd:
      return asio::error::eof;
    case TlsSession::Outcome::kFailed:
      break;
  }
  return asio::error::connection_reset;
}

}  // namespace

void HttpCore::wake(std::shared_ptr<HttpExchange> exchange) {
  {
    const std::lock_guard lock(wake_mutex);
    woken.push_back(std::move(exchange));
    if (woken.size() > 1) return;  // somebody has posted already
  }
  asio::post(io, [self = shared_from_this()] {
    std::vector<std::shared_ptr<HttpExchange>> exchanges;
    {
      const std::lock_guard lock(self->wake_mutex);
      exchanges.swap(self->woken);
    }
    for (const auto& each : exchanges) {
      if (const auto connection = each->connection().lock()) connection->pump(*each);
    }
  });
}

HttpConnection::HttpConnection(std::shared_ptr<HttpCore> core, Socket socket, std::unique_ptr<TlsSession> tls,
                               std::string peer)
    : core_(std::move(core)),
      socket_(std::move(socket)),
      tls_(std::move(tls)),
      peer_(std::move(peer)),
      timer_(core_->io) {}

size_t HttpConnection::read_some(error_code& error) {
  if (!tls_) return socket_.read_some(asio::buffer(core_->scratch), error);
  const TlsSession::Result result = tls_->read(core_->scratch.data(), core_->scratch.size());
  error = error_of(result.outcome);
  read_wait_ = result.outcome == TlsSession::Outcome::kWantsWrite ? Socket::wait_write : Socket::wait_read;
  return result.count;
}

size_t HttpConnection::write_some(error_code& error) {
  const char* from = out_.data() + out_offset_;
  const size_t size = out_.size() - out_offset_;
  if (!tls_) return socket_.write_some(asio::buffer(from, size), error);
  const TlsSession::Result result = tls_->write(from, size);
  error = error_of(result.outcome);
  write_wait_ = result.outcome == TlsSession::Outcome::kWantsRead ? Socket::wait_read : Socket::wait_write;
  return result.count;
}

void HttpConnection::start() {
  set_deadline(Clock::now() + core_->limits.idle_timeout);
  wait_readable();
}

void HttpConnection::wait_readable() {
  if (reading_ || input_ended_ || state_ == State::kClosed || in_.size() >= kMaxUnparsedBytes) return;
  reading_ = true;
  socket_.async_wait(read_wait_, [self = shared_from_this()](const error_code& error) {
    self->reading_ = false;
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->on_readable();
  });
}

void HttpConnection::on_readable() {
  for (int i = 0; i < kReadsPerWake && in_.size() < kMaxUnparsedBytes; ++i) {
    error_code error;
    const size_t count = read_some(error);
    if (has_to_wait(error)) break;
    if (error == asio::error::eof) {
      input_ended_ = true;
      break;
    }
    if (error) return close();  // reset by the client
    if (state_ == State::kLingering) {
      lingered_bytes_ += static_cast<int64_t>(count);
      if (lingered_bytes_ > kMaxLingerBytes) return close();
      continue;
    }
    in_.append(core_->scratch.data(), count);
  }
  proceed();
}

void HttpConnection::proceed() {
  if (std::exchange(processing_, true)) return;
  while (process_step()) {
  }
  processing_ = false;
  if (!input_ended_ || state_ == State::kClosed) return wait_readable();
  // The client has left. An answer that is known already still goes out.
  const bool answer_known = state_ == State::kServing && exchange_ && exchange_->answered();
  if (!answer_known) close();
}

// False when there is nothing to do before more comes in, or goes out.
bool HttpConnection::process_step() {
  if ((state_ != State::kHead && state_ != State::kBody) || in_.empty()) return false;
  if (!parser_) {
    parser_.emplace(core_->limits);
    arrival_ = Clock::now();
    set_deadline(arrival_ + core_->limits.head_timeout);
  }
  const HttpParser::State before = parser_->state();
  const size_t used = parser_->feed(in_);
  in_.erase(0, used);
  switch (parser_->state()) {
    case HttpParser::State::kFailed:
      refuse(parser_->error().status, parser_->error().text);
      return false;
    case HttpParser::State::kHead:
      return false;
    case HttpParser::State::kBody:
      if (before == HttpParser::State::kHead) on_head();
      return used > 0 && !in_.empty();
    case HttpParser::State::kDone:
      if (before == HttpParser::State::kHead) on_head();
      if (state_ == State::kHead || state_ == State::kBody) dispatch();
      return true;
  }
  return false;
}

void HttpConnection::on_head() {
  HttpRequest& request = parser_->request();
  request.peer = peer_;
  request.arrival = arrival_;
  state_ = State::kBody;
  early_ = core_->app.check_head(request);
  const bool has_body = parser_->state() == HttpParser::State::kBody;
  if (early_ && has_body) {
    const auto length = parser_->content_length();
    if (!length || *length > kMaxDrainedBody || parser_->expects_continue()) {
      early_->close = true;
      return answer(*std::exchange(early_, std::nullopt));
    }
  }
  if (!has_body) return;
  if (!reserve_body()) return refuse(503, "the bodies of all requests together are too large just now");
  set_deadline(Clock::now() + core_->limits.body_timeout);
  if (parser_->expects_continue()) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    flush();
  }
}

bool HttpConnection::reserve_body() {
  const int64_t bytes = parser_->content_length().value_or(core_->limits.max_body_bytes);
  std::atomic<int64_t>& total = core_->buffered_body_bytes;
  if (total.fetch_add(bytes) + bytes > core_->limits.max_buffered_body_bytes) {
    total.fetch_sub(bytes);
    return false;
  }
  parser_->request().body_reservation =
      std::shared_ptr<void>(nullptr, [core = core_, bytes](void*) { core->buffered_body_bytes.fetch_sub(bytes); });
  return true;
}

void HttpConnection::dispatch() {
  if (early_) return answer(*std::exchange(early_, std::nullopt));
  auto request = std::make_shared<HttpRequest>(parser_->take_request());
  serve_exchange(request);
  core_->app.serve(std::move(request), exchange_);
}

void HttpConnection::serve_exchange(std::shared_ptr<HttpRequest> request) {
  parser_.reset();
  state_ = State::kServing;
  set_deadline(Clock::time_point::max());
  exchange_bytes_ = 0;
  exchange_ = std::make_shared<HttpExchange>(
      std::move(request), core_->limits.stream_buffer_bytes, weak_from_this(),
      [core = core_](std::shared_ptr<HttpExchange> exchange) { core->wake(std::move(exchange)); });
  if (core_->stopping) exchange_->close_after();
}

void HttpConnection::answer(HttpResponse response) {
  HttpRequest& known = parser_->request();
  auto request = std::make_shared<HttpRequest>(std::move(known));
  serve_exchange(std::move(request));
  exchange_->send(std::move(response));
}

void HttpConnection::refuse(int status, const std::string& text) {
  HttpRequest& request = parser_->request();
  request.peer = peer_;
  request.arrival = arrival_;
  HttpResponse response = core_->app.refuse(status, text);
  response.close = true;
  in_.clear();
  answer(std::move(response));
}

void HttpConnection::pump(const HttpExchange& exchange) {
  if (state_ != State::kServing || exchange_.get() != &exchange) return;
  flush();
  proceed();
}

void HttpConnection::flush() {
  if (writing_ || state_ == State::kClosed) return;
  while (true) {
    if (out_offset_ == out_.size()) {
      out_.clear();
      out_offset_ = 0;
      if (out_.capacity() > kKeptCapacity) out_.shrink_to_fit();
      if (!exchange_) return;
      exchange_->take(out_);
      exchange_bytes_ += static_cast<int64_t>(out_.size());
      if (out_.empty()) {
        set_deadline(Clock::time_point::max());
        if (exchange_->complete()) end_exchange();
        return;
      }
    }
    error_code error;
    out_offset_ += write_some(error);
    if (has_to_wait(error)) break;
    if (error) return close();
  }
  set_deadline(Clock::now() + core_->limits.write_timeout);
  writing_ = true;
  socket_.async_wait(write_wait_, [self = shared_from_this()](const error_code& error) {
    self->writing_ = false;
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->flush();
    self->proceed();
  });
}

void HttpConnection::end_exchange() {
  const auto exchange = std::exchange(exchange_, nullptr);
  const HttpRequest& request = *exchange->request();
  core_->app.done(request,
                  {.status = exchange->status(),
                   .response_bytes = exchange_bytes_,
                   .duration = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - request.arrival)});
  exchange->leave();
  if (exchange->closes()) return linger();
  if (core_->stopping || (input_ended_ && in_.empty())) return close();
  state_ = State::kHead;
  set_deadline(Clock::now() + core_->limits.idle_timeout);
}

// Lets the client read the answer: closing a socket with unread input would reset it.
void HttpConnection::linger() {
  if (input_ended_) return close();
  state_ = State::kLingering;
  in_ = {};
  error_code ignored;
  if (tls_) tls_->end();
  socket_.shutdown(Socket::shutdown_send, ignored);
  set_deadline(Clock::now() + kLingerTimeout);
  wait_readable();
}

void HttpConnection::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  if (deadline >= timer_expiry_) return;  // the timer looks at the deadline when it fires
  timer_expiry_ = deadline;
  timer_.expires_at(deadline);
  timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->state_ == State::kClosed) return;
    self->timer_expiry_ = Clock::time_point::max();
    if (Clock::now() < self->deadline_) return self->set_deadline(self->deadline_);
    self->on_timeout();
  });
}

void HttpConnection::on_timeout() {
  if (state_ == State::kBody || (state_ == State::kHead && parser_)) {
    refuse(408, "the request did not arrive in time");
  } else {
    close();
  }
}

void HttpConnection::stop() {
  if (exchange_) {
    exchange_->close_after();
  } else {
    close();
  }
}

void HttpConnection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  const auto self = shared_from_this();  // the set's reference may be the last
  if (const auto exchange = std::exchange(exchange_, nullptr)) {
    const HttpRequest& request = *exchange->request();
    core_->app.done(
        request, {.status = 499,
                  .response_bytes = exchange_bytes_,
                  .duration = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - request.arrival)});
    exchange->leave();
  }
  error_code ignored;
  if (tls_) tls_->end();
  socket_.close(ignored);
  timer_.cancel();
  parser_.reset();
  in_ = {};
  out_ = {};
  core_->connections.erase(self);
  core_->num_connections.fetch_sub(1);
}

}  // namespace octet
