// Who may ask: API keys, and the origins whose pages browsers let read the answers (CORS).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "octet/server/http_message.h"

namespace octet {

class ApiKeys {
 public:
  // Without keys everybody may ask.
  explicit ApiKeys(std::vector<std::string> keys) : keys_(std::move(keys)) {}
  bool required() const { return !keys_.empty(); }
  // "Authorization: Bearer KEY" or "X-Api-Key: KEY". The time it takes does not depend on where a wrong key differs.
  bool allow(const HttpRequest& request) const;

 private:
  std::vector<std::string> keys_;
};

// One key a line of a file; what follows '#' is a comment.
std::vector<std::string> read_key_file(const std::string& path);

class CorsPolicy {
 public:
  // "*" allows every origin; without origins browsers let no other page read answers.
  explicit CorsPolicy(std::vector<std::string> origins) : origins_(std::move(origins)) {}
  // The headers of an answer to this request.
  HttpHeaders headers(const HttpRequest& request) const;
  // The answer to a preflight (OPTIONS with an origin); nothing if it is none.
  std::optional<HttpResponse> preflight(const HttpRequest& request, const std::string& allowed_methods) const;

 private:
  std::vector<std::string> origins_;
};

}  // namespace octet
