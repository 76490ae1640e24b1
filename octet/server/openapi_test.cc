// The OpenAPI document says what the route table says.
#include "octet/server/openapi.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "octet/server/api_server.h"

namespace octet {
namespace {

using Operations = std::set<std::pair<std::string, std::string>>;  // method, path

Operations described() {
  Operations all;
  const Json document = openapi_document("1");
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      std::string upper = method;
      std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
      all.emplace(upper, path.substr(0, path.find('{')) + (path.ends_with('}') ? "*" : ""));
    }
  }
  return all;
}

TEST(OpenApi, HasEveryRouteThatIsServedAndNoOther) {
  const ApiServer server({});
  Operations served;
  for (const Route& route : server.route_table().routes()) served.emplace(route.method, route.path);
  EXPECT_EQ(described(), served);
}

TEST(OpenApi, SaysOpenWhereNoKeyIsNeeded) {
  const ApiServer server({});
  const Json document = openapi_document("1");
  for (const Route& route : server.route_table().routes()) {
    if (!document["paths"].contains(route.path)) continue;  // '*', or not served
    const Json& operation = document["paths"][route.path][route.method == "GET" ? "get" : "post"];
    EXPECT_EQ(operation.contains("security"), route.access == Route::Access::kOpen) << route.path;
  }
}

TEST(OpenApi, ReferencesAreThere) {
  const Json document = openapi_document("1");
  const std::string text = document.dump();
  const std::string mark = "#/components/schemas/";
  size_t count = 0;
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1), ++count) {
    const size_t begin = at + mark.size();
    const std::string name = text.substr(begin, text.find('"', begin) - begin);
    EXPECT_TRUE(document["components"]["schemas"].contains(name)) << name;
  }
  EXPECT_GT(count, 20U);
}

}  // namespace
}  // namespace octet
