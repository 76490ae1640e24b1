#include "octet/server/http_parser.h"

#include <gtest/gtest.h>

namespace octet {
namespace {

// Feeds `bytes` in pieces of `step`; the state at the end.
HttpParser::State parse(HttpParser& parser, const std::string& bytes, size_t step) {
  std::string waiting;
  for (size_t at = 0; at < bytes.size(); at += step) {
    waiting += bytes.substr(at, step);
    while (true) {
      const auto before = parser.state();
      waiting.erase(0, parser.feed(waiting));
      if (parser.state() == before) break;
    }
    if (parser.state() == HttpParser::State::kFailed) break;
  }
  return parser.state();
}

const std::string kPost =
    "POST /v1/completions/?x=1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc\r\nContent-Length: 5\r\n\r\nhello";

TEST(HttpParser, ReadsTheSameHoweverTheBytesArrive) {
  for (size_t step = 1; step <= kPost.size(); ++step) {
    HttpParser parser(HttpLimits{});
    ASSERT_EQ(parse(parser, kPost, step), HttpParser::State::kDone) << step << ": " << parser.error().text;
    const HttpRequest request = parser.take_request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/completions");
    EXPECT_EQ(request.query, "x=1");
    EXPECT_EQ(request.header("x-request-id"), "abc");
    EXPECT_EQ(request.body, "hello");
    EXPECT_TRUE(request.keep_alive);
  }
}

TEST(HttpParser, ReadsChunks) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    HttpParser parser(HttpLimits{});
    ASSERT_EQ(parse(parser, bytes, step), HttpParser::State::kDone) << step;
    EXPECT_FALSE(parser.content_length());
    EXPECT_EQ(parser.take_request().body, "Wikipedia");
  }
}

TEST(HttpParser, LeavesWhatFollowsARequest) {
  HttpParser parser(HttpLimits{});
  const std::string two = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parser.feed(two), two.size() / 2);
  EXPECT_EQ(parser.state(), HttpParser::State::kDone);
  EXPECT_EQ(parser.request().path, "/a");
}

// Two servers that disagree on where a request ends is what smuggling needs: only CRLF ends a line.
TEST(HttpParser, DoesNotTakeBareLineFeedsForLineEnds) {
  for (const size_t step : {1, 100}) {  // refused, or still waiting for the end of the head
    HttpParser parser(HttpLimits{});
    EXPECT_NE(parse(parser, "GET / HTTP/1.1\nHost: a\n\n", step), HttpParser::State::kDone);
  }
}

struct Refused {
  const char* name;
  std::string bytes;
  int status;
};

class HttpParserRefuses : public testing::TestWithParam<Refused> {};

TEST_P(HttpParserRefuses, WithItsStatus) {
  const Refused& refused = GetParam();
  for (const size_t step : {size_t{1}, size_t{7}, refused.bytes.size()}) {
    HttpLimits limits;
    limits.max_body_bytes = 1000;
    limits.max_header_bytes = 1000;
    limits.max_headers = 8;
    HttpParser parser(limits);
    ASSERT_EQ(parse(parser, refused.bytes, step), HttpParser::State::kFailed) << step;
    EXPECT_EQ(parser.error().status, refused.status) << parser.error().text;
    EXPECT_FALSE(parser.error().text.empty());
  }
}

std::string with_headers(const std::string& headers) { return "POST / HTTP/1.1\r\nHost: a\r\n" + headers + "\r\nxxxx"; }

INSTANTIATE_TEST_SUITE_P(
    Requests, HttpParserRefuses,
    testing::Values(
        Refused{"two_lengths", with_headers("Content-Length: 4\r\nContent-Length: 5\r\n"), 400},
        Refused{"length_and_chunks", with_headers("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), 400},
        Refused{"chunks_and_length", with_headers("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), 400},
        Refused{"negative_length", with_headers("Content-Length: -1\r\n"), 400},
        Refused{"length_of_letters", with_headers("Content-Length: four\r\n"), 400},
        Refused{"huge_length", with_headers("Content-Length: 99999999999999999999999\r\n"), 400},
        Refused{"long_body", with_headers("Content-Length: 1001\r\n"), 413},
        Refused{"bad_chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx", 400},
        Refused{"long_headers", with_headers("X: " + std::string(2000, 'x') + "\r\n"), 431},
        Refused{"many_headers", with_headers("A: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n"), 431},
        Refused{"http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        Refused{"tls", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), 400},
        Refused{"nul_in_a_header", with_headers(std::string("X: a\0b\r\n", 8)), 400},
        Refused{"target_without_slash", "GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        Refused{"bad_percent", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        Refused{"nul_in_the_path", "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(SplitTarget, TakesEveryForm) {
  std::string path, query;
  EXPECT_TRUE(split_target("/v1/models/a%2Fb%20c?q=%20", path, query));
  EXPECT_EQ(path, "/v1/models/a/b c");
  EXPECT_EQ(query, "q=%20");
  EXPECT_TRUE(split_target("http://host:80/x//", path, query));
  EXPECT_EQ(path, "/x");
  EXPECT_TRUE(split_target("http://host", path, query));
  EXPECT_EQ(path, "/");
  EXPECT_TRUE(split_target("*", path, query));
  EXPECT_EQ(path, "/");
  EXPECT_FALSE(split_target("", path, query));
}

}  // namespace
}  // namespace octet
