#include "octet/server/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <limits>

#include "octet/base/error.h"
#include "octet/base/log.h"

namespace octet {
namespace {

constexpr std::chrono::seconds kRefreshInterval{1};

std::string last_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  return reason ? reason : "unknown error";
}

void check_files(SSL_CTX* context, const TlsOptions& options) {
  const std::string& key = options.key_file.empty() ? options.certificate_file : options.key_file;
  // Nobody is there to type a password.
  SSL_CTX_set_default_passwd_cb(context, [](char*, int, int, void*) { return -1; });
  if (SSL_CTX_use_certificate_chain_file(context, options.certificate_file.c_str()) != 1) {
    fail(ErrorCode::kUsage, "{}: expected certificates in PEM: {}", options.certificate_file, last_error());
  }
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    fail(ErrorCode::kUsage, "{}: expected the certificate's private key in PEM, without a password: {}", key,
         last_error());
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    fail(ErrorCode::kUsage, "{}: is not the key of the certificate in {}", key, options.certificate_file);
  }
}

void check_clients(SSL_CTX* context, const TlsOptions& options) {
  using Clients = TlsOptions::ClientCertificates;
  if (options.clients == Clients::kIgnored) return;
  if (options.ca_file.empty()) fail(ErrorCode::kUsage, "certificates of clients need the certificates of who vouches");
  if (SSL_CTX_load_verify_locations(context, options.ca_file.c_str(), nullptr) != 1) {
    fail(ErrorCode::kUsage, "{}: expected certificates in PEM: {}", options.ca_file, last_error());
  }
  SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(options.ca_file.c_str()));
  const int must = options.clients == Clients::kRequired ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | must, nullptr);
}

std::shared_ptr<SSL_CTX> make_context(const TlsOptions& options) {
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context) fail(ErrorCode::kInternal, "OpenSSL: {}", last_error());
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  // A client that closes without saying so has left, as without TLS. Without renegotiation writes never wait for reads.
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                         SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  constexpr unsigned char kName[] = "octet";
  SSL_CTX_set_session_id_context(context.get(), kName, sizeof kName - 1);
  if (!options.ciphers.empty() && SSL_CTX_set_cipher_list(context.get(), options.ciphers.c_str()) != 1) {
    fail(ErrorCode::kUsage, "--ssl-ciphers: OpenSSL knows none of \"{}\"", options.ciphers);
  }
  check_files(context.get(), options);
  check_clients(context.get(), options);
  return context;
}

}  // namespace

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsSession::Result TlsSession::result_of(int code, size_t count) {
  if (code > 0) return {Outcome::kDone, count};
  const int error = SSL_get_error(ssl_, code);
  if (error == SSL_ERROR_WANT_READ) return {Outcome::kWantsRead, 0};
  if (error == SSL_ERROR_WANT_WRITE) return {Outcome::kWantsWrite, 0};
  if (error == SSL_ERROR_ZERO_RETURN) return {Outcome::kEnd, 0};
  failed_ = true;
  if (error == SSL_ERROR_SSL) log_debug("TLS: {}", last_error());
  return {Outcome::kFailed, 0};
}

TlsSession::Result TlsSession::read(char* to, size_t size) {
  ERR_clear_error();
  size_t count = 0;
  const int code = SSL_read_ex(ssl_, to, size, &count);
  return result_of(code, count);
}

TlsSession::Result TlsSession::write(const char* from, size_t size) {
  ERR_clear_error();
  size_t count = 0;
  const int code = SSL_write_ex(ssl_, from, size, &count);
  return result_of(code, count);
}

void TlsSession::end() {
  if (failed_ || SSL_in_init(ssl_)) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);  // as far as the socket takes it
}

TlsCredentials::TlsCredentials(const TlsOptions& options)
    : options_(options), context_(make_context(options)), times_(file_times()) {}

TlsCredentials::Times TlsCredentials::file_times() const {
  Times times;
  for (const std::string* path : {&options_.certificate_file, &options_.key_file, &options_.ca_file}) {
    std::error_code ignored;
    times.push_back(std::filesystem::last_write_time(*path, ignored));
  }
  return times;
}

void TlsCredentials::refresh() {
  const auto now = std::chrono::steady_clock::now();
  if (now - looked_ < kRefreshInterval) return;
  looked_ = now;
  Times times = file_times();
  if (times == times_) return;
  times_ = std::move(times);
  try {
    context_ = make_context(options_);
    log_info("TLS: the certificate was read again");
  } catch (const Error& error) {  // half written, say: its next change is looked at again
    log_warning("TLS: the old certificate stays: {}", error.what());
  }
}

std::unique_ptr<TlsSession> TlsCredentials::open(int socket) {
  if (options_.refresh) refresh();
  SSL* ssl = SSL_new(context_.get());
  if (!ssl) return nullptr;
  auto session = std::make_unique<TlsSession>(ssl);
  if (SSL_set_fd(ssl, socket) != 1) return nullptr;
  SSL_set_accept_state(ssl);
  return session;
}

}  // namespace octet
