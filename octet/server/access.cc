#include "octet/server/access.h"

#include <algorithm>
#include <sstream>

#include "octet/base/error.h"
#include "octet/base/file.h"

namespace octet {
namespace {

bool equal_in_constant_time(std::string_view given, std::string_view key) {
  size_t difference = given.size() ^ key.size();
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(key[i % key.size()]);
  }
  return difference == 0;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

std::string_view key_of(const HttpRequest& request) {
  const std::string_view bearer = request.header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  const bool is_bearer =
      bearer.size() > kScheme.size() && std::equal(kScheme.begin(), kScheme.end(), bearer.begin(), [](char a, char b) {
        return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
      });
  return is_bearer ? trimmed(bearer.substr(kScheme.size())) : trimmed(request.header("x-api-key"));
}

}  // namespace

bool ApiKeys::allow(const HttpRequest& request) const {
  if (!required()) return true;
  const std::string_view given = key_of(request);
  bool found = false;
  for (const std::string& key : keys_) found = equal_in_constant_time(given, key) || found;
  return found;
}

std::vector<std::string> read_key_file(const std::string& path) {
  std::istringstream lines(read_file(path, int64_t{1} << 20));
  std::vector<std::string> keys;
  std::string line;
  while (std::getline(lines, line)) {
    const std::string key(trimmed(std::string_view(line).substr(0, line.find('#'))));
    if (!key.empty()) keys.push_back(key);
  }
  if (keys.empty()) fail(ErrorCode::kUsage, "{}: has no API key", path);
  return keys;
}

HttpHeaders CorsPolicy::headers(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (origins_.empty() || origin.empty()) return {};
  const bool any = std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
  if (any) return {{"Access-Control-Allow-Origin", "*"}, {"Access-Control-Expose-Headers", "x-request-id"}};
  if (std::find(origins_.begin(), origins_.end(), origin) == origins_.end()) return {{"Vary", "Origin"}};
  return {{"Access-Control-Allow-Origin", std::string(origin)},
          {"Access-Control-Expose-Headers", "x-request-id"},
          {"Vary", "Origin"}};
}

std::optional<HttpResponse> CorsPolicy::preflight(const HttpRequest& request,
                                                  const std::string& allowed_methods) const {
  if (request.method != "OPTIONS" || request.header("access-control-request-method").empty()) return std::nullopt;
  HttpResponse response{.status = 204, .headers = headers(request)};
  const bool allowed = std::any_of(response.headers.begin(), response.headers.end(),
                                   [](const auto& header) { return header.first == "Access-Control-Allow-Origin"; });
  if (!allowed) return response;
  const std::string_view wanted = request.header("access-control-request-headers");
  response.headers.emplace_back("Access-Control-Allow-Methods", allowed_methods);
  response.headers.emplace_back("Access-Control-Allow-Headers", wanted.empty() ? "*" : std::string(wanted));
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

}  // namespace octet
