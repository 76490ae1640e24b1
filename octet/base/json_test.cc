#include "octet/base/json.h"

#include <gtest/gtest.h>

#include "octet/base/error.h"

namespace octet {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text, "file.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Json, NamesTheFileAndTheProblem) {
  EXPECT_NE(error_of("{\"a\": ").find("file.json: not valid JSON at byte"), std::string::npos);
  EXPECT_EQ(error_of("{\"a\":1,\"a\":2}"), "file.json: duplicate key \"a\"");
  EXPECT_NE(error_of(std::string(5000, '[')).find("nested deeper"), std::string::npos);
  std::string many = "{\"first\":0";
  for (int i = 0; i < 30000; ++i) many += ",\"k" + std::to_string(i) + "\":0";
  EXPECT_NE(error_of(many + "}").find("more than 20000 keys"), std::string::npos);
  EXPECT_EQ(error_of("{\"a\":[1,2,{\"b\":null}]}"), "");
}

TEST(Json, TypedAccess) {
  const Json json = parse_json(R"({"i":3,"f":1.5,"s":"x","n":null,"big":18446744073709551615})", "c");
  const JsonObject object(json, "c");
  EXPECT_EQ(object.get_int("i"), 3);
  EXPECT_EQ(object.get_number("f"), 1.5);
  EXPECT_EQ(object.get_number("i"), 3.0);
  EXPECT_EQ(object.find_string("n"), std::nullopt);
  EXPECT_THROW(object.get_int("s"), Error);
  EXPECT_THROW(object.get_int("missing"), Error);
  EXPECT_THROW(object.get_int("big"), Error);
  EXPECT_THROW(object.get_int_in("i", 4, 9), Error);
}

}  // namespace
}  // namespace octet
