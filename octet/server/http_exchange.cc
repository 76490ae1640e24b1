#include "octet/server/http_exchange.h"

#include <fmt/format.h>

#include <ctime>
#include <iterator>

namespace octet {
namespace {

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  const size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, length};
}

}  // namespace

HttpExchange::HttpExchange(std::shared_ptr<const HttpRequest> request, size_t buffer_bytes,
                           std::weak_ptr<HttpConnection> connection, Wake wake)
    : request_(std::move(request)),
      buffer_bytes_(buffer_bytes),
      connection_(std::move(connection)),
      wake_(std::move(wake)) {
  closes_ = !request_->keep_alive;
}

void HttpExchange::begin(HttpResponse response, bool whole) {
  {
    const std::lock_guard lock(mutex_);
    if (left_ || begun_) return;
    begun_ = true;
    whole_ = finished_ = whole;
    response_ = std::move(response);
    closes_ = closes_ || response_.close || (!whole && request_->http_1_0);
    woken_ = true;
  }
  wake_(shared_from_this());
}

void HttpExchange::send(HttpResponse response) { begin(std::move(response), true); }
void HttpExchange::start(HttpResponse response) { begin(std::move(response), false); }

void HttpExchange::write(std::string_view bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (left_ || finished_ || !begun_) return;
    pending_ += bytes;
    if (std::exchange(woken_, true)) return;
  }
  wake_(shared_from_this());
}

void HttpExchange::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (left_ || finished_ || !begun_) return;
    finished_ = true;
    if (std::exchange(woken_, true)) return;
  }
  wake_(shared_from_this());
}

bool HttpExchange::writable() {
  const std::lock_guard lock(mutex_);
  if (pending_.size() < buffer_bytes_) return true;
  full_ = true;
  return false;
}

void HttpExchange::watch(HttpReplyEvents events) {
  {
    const std::lock_guard lock(mutex_);
    if (!left_) {
      events_ = std::move(events);
      return;
    }
  }
  if (events.on_gone) events.on_gone();
}

void HttpExchange::take(std::string& out) {
  std::function<void()> on_drained;
  HttpReplyEvents spent;  // what they hold is let go of without the lock
  {
    const std::lock_guard lock(mutex_);
    woken_ = false;
    if (!begun_ || complete_) return;
    if (!std::exchange(head_taken_, true)) append_head(out);
    append_piece(out);
    complete_ = finished_;
    if (std::exchange(full_, false) && !complete_) on_drained = events_.on_drained;
    if (complete_) spent = std::exchange(events_, {});
  }
  if (on_drained) on_drained();
}

void HttpExchange::append_head(std::string& out) {
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nServer: octet\r\nDate: {}\r\n", response_.status,
                 reason_phrase(response_.status), http_date());
  for (const auto& [name, value] : response_.headers) {
    out.append(name).append(": ");
    for (const char c : value) out.push_back(c == '\r' || c == '\n' || c == '\0' ? ' ' : c);
    out += "\r\n";
  }
  if (whole_) {
    fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", response_.body.size());
  } else if (!request_->http_1_0) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  out += closes_ ? "Connection: close\r\n\r\n" : "Connection: keep-alive\r\n\r\n";
  if (whole_) {
    if (request_->method != "HEAD") out += response_.body;
  } else {
    pending_.insert(0, response_.body);
  }
  response_.body = {};
}

void HttpExchange::append_piece(std::string& out) {
  if (whole_) return;
  const bool chunked = !request_->http_1_0;
  if (!pending_.empty()) {
    if (chunked) fmt::format_to(std::back_inserter(out), "{:x}\r\n", pending_.size());
    out += pending_;
    if (chunked) out += "\r\n";
    pending_.clear();
    if (pending_.capacity() > buffer_bytes_) pending_.shrink_to_fit();
  }
  if (finished_ && chunked) out += "0\r\n\r\n";
}

bool HttpExchange::complete() const {
  const std::lock_guard lock(mutex_);
  return complete_;
}

bool HttpExchange::answered() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

void HttpExchange::leave() {
  HttpReplyEvents spent;
  bool was_complete = false;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(left_, true)) return;
    was_complete = complete_;
    spent = std::exchange(events_, {});
    pending_ = {};
  }
  if (!was_complete && spent.on_gone) spent.on_gone();
}

bool HttpExchange::closes() const {
  const std::lock_guard lock(mutex_);
  return closes_;
}

void HttpExchange::close_after() {
  const std::lock_guard lock(mutex_);
  closes_ = true;
}

int HttpExchange::status() const {
  const std::lock_guard lock(mutex_);
  return response_.status;
}

}  // namespace octet
