#include "octet/server/http_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cctype>

namespace octet {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool decode_percent(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return false;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

std::string lower(beast::string_view text) {
  std::string out(text.data(), text.size());
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

bool split_target(std::string_view target, std::string& path, std::string& query) {
  if (const size_t scheme = target.find("://"); !target.empty() && target.front() != '/' && scheme != target.npos) {
    const size_t slash = target.find('/', scheme + 3);
    target = slash == target.npos ? "/" : target.substr(slash);
  }
  if (target == "*") target = "/";  // OPTIONS of the whole server
  if (target.empty() || target.front() != '/') return false;
  const size_t mark = target.find('?');
  query = mark == target.npos ? std::string() : std::string(target.substr(mark + 1));
  if (!decode_percent(target.substr(0, mark), path)) return false;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return true;
}

std::string_view reason_phrase(int status) {
  const auto phrase = http::obsolete_reason(static_cast<http::status>(status));
  return phrase == "<unknown-status>" ? std::string_view("Status") : std::string_view(phrase.data(), phrase.size());
}

struct HttpParser::Beast {
  http::request_parser<http::string_body> parser;
};

HttpParser::HttpParser(const HttpLimits& limits) : limits_(limits), beast_(std::make_unique<Beast>()) {
  beast_->parser.header_limit(static_cast<std::uint32_t>(limits_.max_header_bytes));
  beast_->parser.body_limit(static_cast<std::uint64_t>(limits_.max_body_bytes));
  beast_->parser.eager(false);
}

HttpParser::~HttpParser() = default;

HttpParser::State HttpParser::state() const { return state_; }

void HttpParser::fail_with(int status, std::string text) {
  state_ = State::kFailed;
  error_ = {.status = status, .text = std::move(text)};
}

size_t HttpParser::feed(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && (state_ == State::kHead || state_ == State::kBody)) {
    beast::error_code error;
    const size_t count = beast_->parser.put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), error);
    used += count;
    if (error == http::error::need_more || (!error && count == 0)) break;
    if (error == http::error::body_limit) {
      fail_with(413, "the body is larger than " + std::to_string(limits_.max_body_bytes) + " bytes");
    } else if (error == http::error::header_limit) {
      fail_with(431, "the headers are larger than " + std::to_string(limits_.max_header_bytes) + " bytes");
    } else if (error == http::error::bad_version) {
      fail_with(505, "not HTTP/1.0 or HTTP/1.1");
    } else if (error) {
      fail_with(400, "not a valid HTTP request: " + error.message());
    } else if (state_ == State::kHead && beast_->parser.is_header_done()) {
      read_head();
      return used;  // the caller looks at the head before the body comes
    } else if (beast_->parser.is_done()) {
      state_ = State::kDone;
    }
  }
  return used;
}

void HttpParser::read_head() {
  const auto& message = beast_->parser.get();
  request_.method.assign(message.method_string().data(), message.method_string().size());
  const std::string_view target(message.target().data(), message.target().size());
  if (!split_target(target, request_.path, request_.query)) return fail_with(400, "the request's target is not a path");
  for (const auto& field : message) {
    request_.headers.emplace_back(lower(field.name_string()), std::string(field.value().data(), field.value().size()));
  }
  if (static_cast<int64_t>(request_.headers.size()) > limits_.max_headers) {
    return fail_with(431, "more than " + std::to_string(limits_.max_headers) + " headers");
  }
  request_.http_1_0 = message.version() < 11;
  request_.keep_alive = message.keep_alive();
  beast_->parser.eager(true);
  state_ = beast_->parser.is_done() || content_length() == 0 ? State::kDone : State::kBody;
}

std::optional<int64_t> HttpParser::content_length() const {
  if (beast_->parser.chunked()) return std::nullopt;
  const auto length = beast_->parser.content_length();
  return length ? static_cast<int64_t>(*length) : 0;
}

bool HttpParser::expects_continue() const { return lower(beast_->parser.get()[http::field::expect]) == "100-continue"; }

HttpRequest HttpParser::take_request() {
  request_.body = std::move(beast_->parser.get().body());
  return std::move(request_);
}

}  // namespace octet
