#include "octet/server/route_table.h"

namespace octet {
namespace {

bool fits(const Route& route, std::string_view path, std::string& tail) {
  if (!route.path.ends_with('*')) return route.path == path;
  const std::string_view prefix(route.path.data(), route.path.size() - 1);
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return false;
  tail = path.substr(prefix.size());
  return true;
}

}  // namespace

RouteTable::Match RouteTable::match(std::string_view method, std::string_view path) const {
  Match match;
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : routes_) {
    std::string tail;
    if (!fits(route, path, tail)) continue;
    match.allowed_methods += (match.allowed_methods.empty() ? "" : ", ") + route.method;
    if (route.method == "GET") match.allowed_methods += ", HEAD";
    if (route.method != wanted || match.route) continue;
    match.route = &route;
    match.tail = std::move(tail);
  }
  if (!match.allowed_methods.empty()) match.allowed_methods += ", OPTIONS";
  return match;
}

}  // namespace octet
