// Trace Context as W3C's recommendation has it, spans as OTLP's JSON.
#include "octet/server/trace.h"

#include <gtest/gtest.h>

#include "octet/base/error.h"
#include "octet/server/trace_exporter.h"

namespace octet {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736", kSpan = "00f067aa0ba902b7";

TEST(TraceOf, TakesTheCallersTrace) {
  const auto parent = trace_of("00-" + kTrace + "-" + kSpan + "-01", "a=b");
  ASSERT_TRUE(parent.has_value());
  EXPECT_EQ(parent->trace_id, kTrace);
  EXPECT_EQ(parent->span_id, kSpan);
  EXPECT_EQ(parent->state, "a=b");
  EXPECT_EQ(trace_of("cc-" + kTrace + "-" + kSpan + "-03-more", "")->span_id, kSpan);  // a later version
  EXPECT_FALSE(trace_of("00-" + kTrace + "-" + kSpan + "-00", "").has_value());
  EXPECT_FALSE(trace_of("00-" + kTrace + "-" + kSpan + "-0a", "").has_value());
}

TEST(TraceOf, BeginsATraceWhereThereIsNone) {
  for (const std::string& header :
       {std::string(), "00-" + kTrace + "-" + kSpan, "ff-" + kTrace + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + kSpan + "-01-more", "00-" + std::string(32, '0') + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + std::string(16, '0') + "-01", "00-" + kTrace + "-00F067AA0BA902B7-01",
        "00_" + kTrace + "-" + kSpan + "-01", std::string(55, '-'), std::string(10'000, '0')}) {
    const auto parent = trace_of(header, "a=b");
    ASSERT_TRUE(parent.has_value()) << header;
    EXPECT_EQ(parent->trace_id.size(), 32U);
    EXPECT_NE(parent->trace_id, kTrace);
    EXPECT_TRUE(parent->span_id.empty() && parent->state.empty());
  }
  EXPECT_NE(random_hex(8), random_hex(8));
}

TEST(OtlpJson, IsAnExportRequest) {
  const TraceSpan child{.parent = {.trace_id = kTrace, .span_id = kSpan, .state = "a=b"},
                        .span_id = "1111111111111111",
                        .name = "llm_request",
                        .start_unix_ns = 1'700'000'000'000'000'001,
                        .end_unix_ns = 1'700'000'000'500'000'000,
                        .attributes = {{"s", std::string("x")}, {"i", int64_t{7}}, {"d", 0.5}},
                        .error = "no luck"};
  const TraceSpan root{.parent = {.trace_id = kTrace, .span_id = {}, .state = {}},
                       .span_id = "2222222222222222",
                       .name = "llm_request",
                       .start_unix_ns = 1,
                       .end_unix_ns = 2,
                       .attributes = {},
                       .error = {}};
  const std::vector<TraceSpan> spans = {child, root};
  EXPECT_EQ(nlohmann::json::parse(otlp_json(spans, "octet", "1").dump()), nlohmann::json::parse(R"({"resourceSpans":[{
      "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"octet"}},
                                {"key":"service.version","value":{"stringValue":"1"}}]},
      "scopeSpans":[{"scope":{"name":"octet","version":"1"},"spans":[
        {"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"1111111111111111","parentSpanId":"00f067aa0ba902b7",
         "traceState":"a=b","name":"llm_request","kind":2,"startTimeUnixNano":"1700000000000000001",
         "endTimeUnixNano":"1700000000500000000","attributes":[{"key":"s","value":{"stringValue":"x"}},
           {"key":"i","value":{"intValue":"7"}},{"key":"d","value":{"doubleValue":0.5}}],
         "status":{"code":2,"message":"no luck"}},
        {"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"2222222222222222","name":"llm_request","kind":2,
         "startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[]}]}]}]})"));
}

TEST(TraceExporter, KnowsItsEndpoint) {
  EXPECT_EQ(TraceExporter::url_of("http://h:4318"), "http://h:4318/v1/traces");
  EXPECT_EQ(TraceExporter::url_of("http://h:4318/"), "http://h:4318/v1/traces");
  EXPECT_EQ(TraceExporter::url_of("https://h/otlp/v1/traces"), "https://h/otlp/v1/traces");
  for (const char* bad : {"", "h:4317", "grpc://h:4317", "http://", "http:///v1/traces"}) {
    EXPECT_THROW(TraceExporter::url_of(bad), Error) << bad;
  }
}

// Nobody listens on port 9 ("discard") here.
TEST(TraceExporter, CountsWhatIsLost) {
  const auto begin = std::chrono::steady_clock::now();
  TraceExporter exporter("http://127.0.0.1:9", "octet", "1");
  exporter.offer({.parent = {}, .span_id = {}, .attributes = {}, .error = {}});
  while (exporter.num_dropped() == 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(exporter.num_dropped(), 1);
  EXPECT_EQ(exporter.num_exported(), 0);
}

}  // namespace
}  // namespace octet
