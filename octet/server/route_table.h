// RouteTable: the table of what is served where. A route is a row of data.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "octet/server/api_error.h"
#include "octet/server/http_message.h"
#include "octet/server/http_reply.h"

namespace octet {

// One request on its way through a route.
struct Call {
  std::shared_ptr<HttpRequest> request;
  std::shared_ptr<HttpReply> reply;
  std::string request_id;
  std::string tail;  // what stands for the '*' of the route's path
};

struct Route {
  std::string method;  // "GET" serves HEAD too
  std::string path;    // exact, or with a '*' at its end
  enum class Access : uint8_t { kKey, kOpen, kAdmin } access = Access::kKey;
  enum class Where : uint8_t {
    kWorker,
    kInline
  } where = Where::kWorker;  // kInline: on the I/O thread, for what is quick
  enum class Needs : uint8_t { kModel, kPlace, kNothing } needs = Needs::kModel;  // kPlace: the model and a free place
  std::function<void(Call&)> serve;                                               // may throw
  ErrorWording errors = ErrorWording::kOpenAi;
};

class RouteTable {
 public:
  explicit RouteTable(std::vector<Route> routes) : routes_(std::move(routes)) {}

  struct Match {
    const Route* route = nullptr;  // nullptr: 404, or 405 when there are allowed methods
    std::string tail;
    std::string allowed_methods;  // of the path: "GET, HEAD, OPTIONS"; empty: no such path
  };
  const std::vector<Route>& routes() const { return routes_; }
  Match match(std::string_view method, std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace octet
