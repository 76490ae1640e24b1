#include "octet/server/trace.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int kServerSpan = 2;   // SPAN_KIND_SERVER
constexpr int kErrorStatus = 2;  // STATUS_CODE_ERROR
constexpr size_t kMaxStateBytes = 512;

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_id(std::string_view text) { return is_hex(text) && text.find_first_not_of('0') != text.npos; }

Json value_json(const TraceSpan::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return {{"stringValue", *text}};
  if (const auto* whole = std::get_if<int64_t>(&value)) return {{"intValue", std::to_string(*whole)}};
  return {{"doubleValue", std::get<double>(value)}};
}

Json attribute_json(const char* key, const TraceSpan::Value& value) {
  return {{"key", key}, {"value", value_json(value)}};
}

Json span_json(const TraceSpan& span) {
  Json attributes = Json::array();
  for (const auto& [key, value] : span.attributes) attributes.push_back(attribute_json(key, value));
  Json json = {{"traceId", span.parent.trace_id},
               {"spanId", span.span_id},
               {"name", span.name},
               {"kind", kServerSpan},
               {"startTimeUnixNano", std::to_string(span.start_unix_ns)},
               {"endTimeUnixNano", std::to_string(span.end_unix_ns)},
               {"attributes", std::move(attributes)}};
  if (!span.parent.span_id.empty()) json["parentSpanId"] = span.parent.span_id;
  if (!span.parent.state.empty()) json["traceState"] = span.parent.state;
  if (!span.error.empty()) json["status"] = {{"code", kErrorStatus}, {"message", span.error}};
  return json;
}

}  // namespace

std::string random_hex(size_t num_bytes) {
  std::vector<unsigned char> bytes(num_bytes);
  std::string text;
  while (!is_id(text)) {
    if (getrandom(bytes.data(), num_bytes, 0) != static_cast<ssize_t>(num_bytes)) {
      fail(ErrorCode::kIo, "getrandom failed");
    }
    text.clear();
    for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  }
  return text;
}

// "00-<trace id>-<span id>-<flags>"; later versions may have more behind another '-'.
std::optional<TraceParent> trace_of(std::string_view traceparent, std::string_view tracestate) {
  constexpr size_t kTraceAt = 3, kTraceSize = 32, kSpanAt = 36, kSpanSize = 16, kFlagsAt = 53, kSize = 55;
  const std::string_view version = traceparent.substr(0, 2);
  const bool long_enough =
      traceparent.size() == kSize || (traceparent.size() > kSize && version != "00" && traceparent[kSize] == '-');
  const bool readable = long_enough && is_hex(version) && version != "ff" && traceparent[2] == '-' &&
                        traceparent[kSpanAt - 1] == '-' && traceparent[kFlagsAt - 1] == '-' &&
                        is_id(traceparent.substr(kTraceAt, kTraceSize)) &&
                        is_id(traceparent.substr(kSpanAt, kSpanSize)) && is_hex(traceparent.substr(kFlagsAt, 2));
  if (!readable) return TraceParent{.trace_id = random_hex(kTraceSize / 2), .span_id = {}, .state = {}};
  const char last = traceparent[kFlagsAt + 1];
  const int flags = last <= '9' ? last - '0' : last - 'a' + 10;
  if ((flags & 1) == 0) return std::nullopt;
  return TraceParent{.trace_id = std::string(traceparent.substr(kTraceAt, kTraceSize)),
                     .span_id = std::string(traceparent.substr(kSpanAt, kSpanSize)),
                     .state = std::string(tracestate.size() <= kMaxStateBytes ? tracestate : std::string_view())};
}

Json otlp_json(std::span<const TraceSpan> spans, const std::string& service_name, const std::string& version) {
  Json list = Json::array();
  for (const TraceSpan& span : spans) list.push_back(span_json(span));
  const Json resource = {{"attributes", Json::array({attribute_json("service.name", service_name),
                                                     attribute_json("service.version", version)})}};
  const Json scope = {{"scope", {{"name", "octet"}, {"version", version}}}, {"spans", std::move(list)}};
  return {{"resourceSpans", Json::array({{{"resource", resource}, {"scopeSpans", Json::array({scope})}}})}};
}

}  // namespace octet
