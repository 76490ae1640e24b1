// Traces of requests as OpenTelemetry has them: whose trace a request belongs to (W3C Trace Context), and spans as
// OTLP's JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "octet/base/json.h"

namespace octet {

// The trace that a span belongs to.
struct TraceParent {
  std::string trace_id;  // 32 hexadecimal digits
  std::string span_id;   // 16, of the caller's span; empty: the trace begins here
  std::string state;     // of tracestate, as it came
};

// Of the headers traceparent and tracestate; a new trace where they say nothing that can be read. Nothing when the
// caller says that the trace is not recorded.
std::optional<TraceParent> trace_of(std::string_view traceparent, std::string_view tracestate);
// So many random bytes in hexadecimal, not all zero.
std::string random_hex(size_t num_bytes);

struct TraceSpan {
  using Value = std::variant<std::string, int64_t, double>;

  TraceParent parent;
  std::string span_id;
  const char* name = "";
  int64_t start_unix_ns = 0, end_unix_ns = 0;
  std::vector<std::pair<const char*, Value>> attributes;
  std::string error;  // empty: it went well
};

// The body of a POST to a collector's /v1/traces (OTLP/HTTP, ExportTraceServiceRequest in JSON).
Json otlp_json(std::span<const TraceSpan> spans, const std::string& service_name, const std::string& version);

}  // namespace octet
