// TLS of a server's connections, by OpenSSL, over sockets that never block: whoever reads or writes waits for the
// socket himself, as without TLS. The handshake is part of the first read. TLS 1.2 and later.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

// OpenSSL's types, which only tls.cc sees.
struct ssl_st;
struct ssl_ctx_st;

namespace octet {

struct TlsOptions {
  std::string certificate_file;  // PEM, the server's own first, then those that vouch for it; empty: no TLS
  std::string key_file;          // PEM; empty: in certificate_file
  std::string ca_file;           // PEM: who may vouch for clients
  enum class ClientCertificates : uint8_t { kIgnored, kOptional, kRequired } clients = ClientCertificates::kIgnored;
  std::string ciphers;   // of TLS 1.2, in OpenSSL's notation; empty: its default
  bool refresh = false;  // new connections use the files as they are then
};

// One connection's.
class TlsSession {
 public:
  explicit TlsSession(ssl_st* ssl) : ssl_(ssl) {}
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // kWantsRead, kWantsWrite: nothing was done; again when the socket is so. kEnd: the client has ended its side.
  enum class Outcome : uint8_t { kDone, kWantsRead, kWantsWrite, kEnd, kFailed };
  struct Result {
    Outcome outcome = Outcome::kDone;
    size_t count = 0;  // bytes read or written
  };
  // With room for a whole record (16 KiB) nothing that has come stays behind in the session.
  Result read(char* to, size_t size);
  // What is given again after kWants... must begin with the same bytes.
  Result write(const char* from, size_t size);
  // Says that nothing follows.
  void end();

 private:
  Result result_of(int code, size_t count);

  ssl_st* ssl_;
  bool failed_ = false;
};

class TlsCredentials {
 public:
  // Throws Error{kUsage} naming the file that is not what it should be.
  explicit TlsCredentials(const TlsOptions& options);

  // Of a connected socket, which outlives it. nullptr: no memory.
  std::unique_ptr<TlsSession> open(int socket);

 private:
  using Times = std::vector<std::filesystem::file_time_type>;
  void refresh();
  Times file_times() const;

  const TlsOptions options_;
  std::shared_ptr<ssl_ctx_st> context_;
  Times times_;
  std::chrono::steady_clock::time_point looked_;
};

}  // namespace octet
