#include "octet/server/http_server.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <thread>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/server/http_connection.h"

namespace octet {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Stream = asio::generic::stream_protocol;

constexpr int kBacklog = 4096;
constexpr int64_t kOtherDescriptors = 64;  // files, epoll, listeners
constexpr std::chrono::milliseconds kAcceptPause{100};

// As many connections as the limit on open files allows, which is raised first.
int64_t allowed_connections(int64_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return wanted;
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(limit.rlim_cur) - kOtherDescriptors);
  if (most < wanted) log_info("connections limited to {} by the limit of {} open files", most, limit.rlim_cur);
  return std::min(wanted, most);
}

Stream::endpoint tcp_endpoint(asio::io_context& io, const std::string& host, uint16_t port) {
  tcp::resolver resolver(io);
  error_code error;
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) fail(ErrorCode::kIo, "host \"{}\": {}", host, error.message());
  return found.begin()->endpoint();
}

// A socket that nobody listens on any more is removed; one that answers is somebody's.
void remove_stale_socket(asio::io_context& io, const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return;
  if (!S_ISSOCK(found.st_mode)) fail(ErrorCode::kIo, "{}: exists and is no socket", path);
  asio::local::stream_protocol::socket probe(io);
  error_code error;
  probe.connect(asio::local::stream_protocol::endpoint(path), error);
  if (!error) fail(ErrorCode::kIo, "{}: another server listens there", path);
  ::unlink(path.c_str());
}

std::string peer_name(const Stream::endpoint& endpoint) {
  if (endpoint.protocol().family() != AF_INET && endpoint.protocol().family() != AF_INET6) return "unix";
  tcp::endpoint address;
  address.resize(endpoint.size());
  std::memcpy(address.data(), endpoint.data(), endpoint.size());
  return fmt::format("{}:{}", address.address().to_string(), address.port());
}

}  // namespace

struct HttpServer::State {
  State(const HttpServerOptions& options_in, HttpApp& app)
      : options(options_in),
        core(std::make_shared<HttpCore>(limits_of(options_in), app)),
        acceptor(core->io),
        pause(core->io) {
    if (!options.tls.certificate_file.empty()) tls.emplace(options.tls);
  }

  static HttpLimits limits_of(const HttpServerOptions& options) {
    HttpLimits limits = options.limits;
    limits.max_connections = allowed_connections(limits.max_connections);
    return limits;
  }
  void listen();
  void accept();
  void take(HttpConnection::Socket socket, const Stream::endpoint& peer);

  HttpServerOptions options;
  std::shared_ptr<HttpCore> core;
  asio::basic_socket_acceptor<Stream> acceptor;
  asio::steady_timer pause;
  std::optional<TlsCredentials> tls;  // of the I/O thread
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::thread thread;
  uint16_t port = 0;
};

void HttpServer::State::listen() {
  const bool is_unix = !options.unix_socket.empty();
  if (is_unix) remove_stale_socket(core->io, options.unix_socket);
  const Stream::endpoint endpoint = is_unix
                                        ? Stream::endpoint(asio::local::stream_protocol::endpoint(options.unix_socket))
                                        : tcp_endpoint(core->io, options.host, options.port);
  const std::string name = is_unix ? options.unix_socket : fmt::format("{}:{}", options.host, options.port);
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error && !is_unix) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(kBacklog, error);
  if (error) fail(ErrorCode::kIo, "cannot listen on {}: {}", name, error.message());
  if (is_unix) return;
  const Stream::endpoint bound = acceptor.local_endpoint();
  tcp::endpoint address;
  address.resize(bound.size());
  std::memcpy(address.data(), bound.data(), bound.size());
  port = address.port();
}

void HttpServer::State::accept() {
  auto socket = std::make_shared<HttpConnection::Socket>(core->io);
  auto peer = std::make_shared<Stream::endpoint>();
  acceptor.async_accept(*socket, *peer, [this, socket, peer](const error_code& error) {
    if (error == asio::error::operation_aborted || !acceptor.is_open()) return;
    if (!error) {
      take(std::move(*socket), *peer);
      return accept();
    }
    if (error != asio::error::connection_aborted)
      warn_once(fmt::format("cannot accept a connection: {}", error.message()));
    pause.expires_after(kAcceptPause);  // no descriptors: they come back when clients leave
    pause.async_wait([this](const error_code& stopped) {
      if (!stopped) accept();
    });
  });
}

void HttpServer::State::take(HttpConnection::Socket socket, const Stream::endpoint& peer) {
  error_code error;
  socket.non_blocking(true, error);
  if (core->num_connections.load() >= core->limits.max_connections) {
    if (tls) return;  // no answer without a handshake: it is closed
    const HttpResponse full = core->app.refuse(503, "too many connections");
    const std::string text = fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        "Connection: close\r\nContent-Length: {}\r\n\r\n{}",
        full.body.size(), full.body);
    socket.write_some(asio::buffer(text), error);
    return;
  }
  if (options.unix_socket.empty()) socket.set_option(tcp::no_delay(true), error);
  std::unique_ptr<TlsSession> session;
  if (tls && !(session = tls->open(socket.native_handle()))) return;
  const auto connection =
      std::make_shared<HttpConnection>(core, std::move(socket), std::move(session), peer_name(peer));
  core->connections.insert(connection);
  core->num_connections.fetch_add(1);
  connection->start();
}

HttpServer::HttpServer(const HttpServerOptions& options, HttpApp& app) : state_(std::make_unique<State>(options, app)) {
  state_->listen();
}

HttpServer::~HttpServer() { stop(std::chrono::milliseconds(0)); }

void HttpServer::start() {
  state_->work.emplace(state_->core->io.get_executor());
  state_->accept();
  state_->thread = std::thread([core = state_->core] {
    pthread_setname_np(pthread_self(), "octet-http");
    while (true) {
      try {
        core->io.run();
        return;
      } catch (const std::exception& error) {  // one exchange's fault is not the server's
        log_line(LogLevel::kError, fmt::format("the HTTP server caught: {}", error.what()));
      }
    }
  });
}

void HttpServer::stop(std::chrono::milliseconds patience) {
  State& state = *state_;
  if (!state.thread.joinable()) return;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  const auto on_io_thread = [&](const std::function<void()>& work) {
    std::promise<void> done;
    asio::post(state.core->io, [&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  };
  on_io_thread([&] {
    error_code ignored;
    state.acceptor.close(ignored);
    state.pause.cancel();
    state.core->stopping = true;
    const auto connections = state.core->connections;  // a copy: they erase themselves
    for (const auto& connection : connections) connection->stop();
  });
  while (num_connections() > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  on_io_thread([&] {
    const auto connections = state.core->connections;
    for (const auto& connection : connections) connection->close();
  });
  state.work.reset();
  state.core->io.stop();
  state.thread.join();
  if (!state.options.unix_socket.empty()) ::unlink(state.options.unix_socket.c_str());
}

std::string HttpServer::url() const {
  const HttpServerOptions& options = state_->options;
  if (!options.unix_socket.empty()) return "unix:" + options.unix_socket;
  const bool ipv6 = options.host.find(':') != std::string::npos;
  const char* scheme = state_->tls ? "https" : "http";
  return ipv6 ? fmt::format("{}://[{}]:{}", scheme, options.host, state_->port)
              : fmt::format("{}://{}:{}", scheme, options.host, state_->port);
}

uint16_t HttpServer::port() const { return state_->port; }
int64_t HttpServer::num_connections() const { return state_->core->num_connections.load(); }

}  // namespace octet
