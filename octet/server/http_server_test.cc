// The HTTP server over real sockets, with an app of the test's own.
#include "octet/server/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "octet/base/error.h"

namespace octet {
namespace {

using namespace std::chrono_literals;

class EchoApp : public HttpApp {
 public:
  std::optional<HttpResponse> check_head(const HttpRequest& request) override {
    if (request.path == "/refused") return HttpResponse{.status = 401, .headers = {}, .body = "no"};
    return std::nullopt;
  }
  void serve(std::shared_ptr<HttpRequest> request, std::shared_ptr<HttpReply> reply) override {
    if (request->path == "/never" || request->path == "/stream") {
      reply->watch({.on_gone = [this] { ++num_gone; }, .on_drained = [this] { ++num_drained; }});
      const std::lock_guard lock(mutex);
      held = reply;
      arrived.notify_all();
      return;
    }
    reply->send({.status = 200, .headers = {{"X-Path", request->path}}, .body = request->body});
  }
  HttpResponse refuse(int status, const std::string& text) override {
    return {.status = status, .headers = {}, .body = text};
  }
  void done(const HttpRequest&, const HttpOutcome& outcome) override {
    if (outcome.status == 499) ++num_499;
    ++num_done;
  }
  std::shared_ptr<HttpReply> wait_for_held() {
    std::unique_lock lock(mutex);
    arrived.wait_for(lock, 10s, [&] { return held != nullptr; });
    return held;
  }

  std::atomic<int> num_gone{0}, num_drained{0}, num_done{0}, num_499{0};
  std::mutex mutex;
  std::condition_variable arrived;
  std::shared_ptr<HttpReply> held;
};

HttpServerOptions quick_options() {
  HttpServerOptions options;
  options.port = 0;
  options.limits.head_timeout = 300ms;
  options.limits.body_timeout = 300ms;
  options.limits.idle_timeout = 300ms;
  options.limits.write_timeout = 1000ms;
  options.limits.max_body_bytes = 1 << 20;
  options.limits.max_connections = 300;
  return options;
}

class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  void send(const std::string& bytes) const {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t count = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += static_cast<size_t>(count);
    }
  }
  void end_sending() const { ::shutdown(fd_, SHUT_WR); }
  void reset() const {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  // Reads until `text` has come, the connection ends or the time is up.
  std::string read_until(const std::string& text, std::chrono::milliseconds patience = 5s) const {
    std::string all;
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (text.empty() || all.find(text) == std::string::npos) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
      if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) <= 0) return all + "<no more in time>";
      char buffer[16384];
      const ssize_t count = ::recv(fd_, buffer, sizeof buffer, 0);
      if (count <= 0) return all;
      all.append(buffer, static_cast<size_t>(count));
    }
    return all;
  }
  std::string read_all() const { return read_until(""); }

 private:
  int fd_;
  bool connected_ = false;
};

class HttpServerTest : public testing::Test {
 protected:
  explicit HttpServerTest(const HttpServerOptions& options = quick_options()) : server_(options, app_) {
    server_.start();
  }
  std::string exchange(const std::string& bytes) const {
    const Client client(server_.port());
    client.send(bytes);
    client.end_sending();
    return client.read_all();
  }
  static bool soon(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }

  EchoApp app_;
  HttpServer server_;
};

std::string post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: a\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

TEST_F(HttpServerTest, AnswersEvenAClientThatHasSentItsLastByte) {
  const std::string answer = exchange(post("/x", "hello"));
  EXPECT_EQ(answer.substr(0, 17), "HTTP/1.1 200 OK\r\n");
  EXPECT_NE(answer.find("X-Path: /x\r\n"), std::string::npos);
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(answer.substr(answer.size() - 9), "\r\n\r\nhello");
}

TEST_F(HttpServerTest, KeepsConnectionsAndAnswersPipelinedRequestsInOrder) {
  std::string bytes;
  for (int i = 0; i < 200; ++i) bytes += post("/" + std::to_string(i), "b" + std::to_string(i));
  const std::string answer = exchange(bytes);
  size_t at = 0;
  for (int i = 0; i < 200; ++i) {
    at = answer.find("X-Path: /" + std::to_string(i) + "\r\n", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_TRUE(soon([&] { return server_.num_connections() == 0; }));
}

TEST_F(HttpServerTest, HeadHasTheLengthAndNoBody) {
  const std::string answer = exchange("HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
}

TEST_F(HttpServerTest, RefusesBeforeTheBodyComes) {
  EXPECT_EQ(exchange(post("/refused", "small")).substr(9, 3), "401");
  const Client client(server_.port());
  client.send("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n");
  const std::string answer = client.read_until("no");
  EXPECT_EQ(answer.substr(9, 3), "401") << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

TEST_F(HttpServerTest, SaysContinueToThoseWhoWaitForIt) {
  const Client client(server_.port());
  client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ok");
  EXPECT_NE(client.read_until("\r\n\r\nok").find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, ABodyTooLargeGetsItsAnswerThoughItIsStillBeingSent) {
  const Client client(server_.port());
  client.send(post("/x", std::string(3 << 20, 'x')));
  EXPECT_EQ(client.read_until("larger than").substr(9, 3), "413");
}

TEST_F(HttpServerTest, SlowRequestsAreEnded) {
  const Client head(server_.port()), body(server_.port()), idle(server_.port());
  head.send("GET / HT");
  body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx");
  EXPECT_EQ(head.read_until("in time").substr(9, 3), "408");
  EXPECT_EQ(body.read_until("in time").substr(9, 3), "408");
  EXPECT_EQ(idle.read_all(), "");
}

TEST_F(HttpServerTest, TellsWhenAClientLeaves) {
  for (const bool with_reset : {false, true}) {
    app_.held = nullptr;
    const int before = app_.num_gone;
    {
      const Client client(server_.port());
      client.send(post("/never", ""));
      ASSERT_TRUE(app_.wait_for_held());
      if (with_reset) client.reset();
    }
    EXPECT_TRUE(soon([&] { return app_.num_gone == before + 1; }));
  }
  EXPECT_EQ(app_.num_499, 2);
  app_.held->send({.status = 200, .headers = {}, .body = "late"});  // nobody is there
}

TEST_F(HttpServerTest, StreamsInChunks) {
  const Client client(server_.port());
  client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = app_.wait_for_held();
  ASSERT_TRUE(reply);
  reply->start({.status = 200, .headers = {{"Content-Type", "text/event-stream"}}, .body = "data: 1\n\n"});
  const std::string first = client.read_until("\n\n\r\n");
  EXPECT_NE(first.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_TRUE(first.ends_with("\r\n\r\n9\r\ndata: 1\n\n\r\n")) << first;
  reply->write("data: 2\n\n");
  EXPECT_EQ(client.read_until("\n\n\r\n"), "9\r\ndata: 2\n\n\r\n");
  reply->write("data: 3\n\n");
  reply->finish();
  EXPECT_TRUE(client.read_until("0\r\n\r\n").ends_with("0\r\n\r\n"));
  client.send(post("/next", "n"));  // the connection lives on
  EXPECT_NE(client.read_until("\r\n\r\nn").find("X-Path: /next"), std::string::npos);
}

TEST_F(HttpServerTest, StreamsToHttp10UntilTheEnd) {
  const Client client(server_.port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  const auto reply = app_.wait_for_held();
  ASSERT_TRUE(reply);
  reply->start({.status = 200, .headers = {}, .body = "one"});
  reply->write("two");
  reply->finish();
  const std::string answer = client.read_all();
  EXPECT_TRUE(answer.ends_with("\r\n\r\nonetwo")) << answer;
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
}

TEST_F(HttpServerTest, ASlowReaderIsSeenAndOneThatTakesNothingIsEnded) {
  const Client client(server_.port(), 4096);
  client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = app_.wait_for_held();
  ASSERT_TRUE(reply);
  reply->start({.status = 200, .headers = {}, .body = "x"});
  const std::string piece(1 << 16, 'x');
  size_t written = 0;
  // Full for good, not only while the I/O thread is busy.
  const auto has_room = [&] {
    for (int i = 0; i < 100 && !reply->writable(); ++i) std::this_thread::sleep_for(2ms);
    return reply->writable();
  };
  while (has_room() && written < (size_t{1} << 30)) {
    reply->write(piece);
    written += piece.size();
  }
  EXPECT_LT(written, size_t{1} << 30);
  EXPECT_EQ(app_.num_gone, 0);
  EXPECT_EQ(exchange(post("/other", "y")).substr(9, 3), "200");  // nobody else waits
  EXPECT_TRUE(soon([&] { return app_.num_gone == 1; }));
}

TEST_F(HttpServerTest, AReaderThatCatchesUpGetsEverything) {
  const Client client(server_.port(), 4096);
  client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = app_.wait_for_held();
  ASSERT_TRUE(reply);
  reply->start({.status = 200, .headers = {}, .body = ""});
  const std::string piece(1 << 16, 'x');
  size_t written = 0;
  while (reply->writable()) {
    reply->write(piece);
    written += piece.size();
    std::this_thread::sleep_for(1ms);
  }
  reply->finish();
  const std::string all = client.read_until("0\r\n\r\n", 20s);
  EXPECT_EQ(static_cast<size_t>(std::count(all.begin(), all.end(), 'x')), written);
}

TEST_F(HttpServerTest, ConnectionsBeyondTheLimitAreToldSo) {
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(std::make_unique<Client>(server_.port()));
    clients.back()->send("GET /");  // stays for its timeout
  }
  ASSERT_TRUE(soon([&] { return server_.num_connections() == 300; }));
  const Client one_more(server_.port());
  EXPECT_EQ(one_more.read_all().substr(9, 3), "503");
  clients.clear();
  EXPECT_TRUE(soon([&] { return server_.num_connections() == 0; }));
  EXPECT_EQ(exchange(post("/x", "y")).substr(9, 3), "200");
}

TEST_F(HttpServerTest, SurvivesManyResets) {
  for (int i = 0; i < 500; ++i) {
    const Client client(server_.port());
    client.send(i % 2 == 0 ? "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nxx" : post("/x", "body"));
    client.reset();
  }
  EXPECT_EQ(exchange(post("/x", "y")).substr(9, 3), "200");
  EXPECT_TRUE(soon([&] { return server_.num_connections() == 0; }));
}

TEST(HttpServer, NamesTheAddressItCannotListenOn) {
  EchoApp app;
  HttpServerOptions options = quick_options();
  const HttpServer first(options, app);
  options.port = first.port();
  try {
    const HttpServer second(options, app);
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find(std::to_string(options.port)), std::string::npos) << error.what();
  }
}

TEST(HttpServer, ListensOnAUnixSocketAndTakesAStaleOneOver) {
  EchoApp app;
  HttpServerOptions options = quick_options();
  options.unix_socket = (std::filesystem::temp_directory_path() / ("octet_http_" + std::to_string(getpid()))).string();
  for (int i = 0; i < 2; ++i) {
    HttpServer server(options, app);
    server.start();
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options.unix_socket.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string request = post("/u", "x");
    ASSERT_EQ(::send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    char buffer[512];
    const ssize_t count = ::recv(fd, buffer, sizeof buffer, 0);
    ASSERT_GT(count, 15);
    EXPECT_EQ(std::string(buffer, 15), "HTTP/1.1 200 OK");
    ::close(fd);
  }
  EXPECT_FALSE(std::filesystem::exists(options.unix_socket));
}

}  // namespace
}  // namespace octet
