#include "octet/server/server_status.h"

#include "octet/base/build_facts.h"

namespace octet {
namespace {

const char* state_name(Lifecycle::State state) {
  switch (state) {
    case Lifecycle::State::kLoading:
      return "loading";
    case Lifecycle::State::kReady:
      return "ready";
    case Lifecycle::State::kDraining:
      return "draining";
    case Lifecycle::State::kStopped:
      return "stopped";
  }
  return "";
}

Json model_json(const ServedModel& model) {
  const EngineReport& report = model.llm().engine().report();
  return {{"name", model.facts().names.front()},
          {"architecture", report.architecture},
          {"parameters", report.num_parameters},
          {"quantization", report.quantization},
          {"dtype", report.dtype},
          {"kv_cache_dtype", report.kv_cache_dtype},
          {"device", report.device},
          {"max_model_len", model.facts().max_model_len},
          {"weight_bytes", report.weight_bytes},
          {"activation_bytes", report.activation_bytes},
          {"kv_cache_bytes", report.kv_cache_bytes},
          {"kv_cache_tokens", report.kv_cache_tokens},
          {"max_num_seqs", report.max_num_seqs},
          {"load_seconds", report.load_seconds},
          {"start_seconds", report.start_seconds},
          {"chat", model.llm().chat_template_source() != nullptr}};
}

Json engine_json(const EngineMetrics& engine, int64_t num_rejected) {
  return {{"running", engine.num_running},
          {"waiting", engine.num_waiting},
          {"kv_usage", engine.kv_usage},
          {"prompt_tokens", engine.prompt_tokens},
          {"cached_prompt_tokens", engine.cached_prompt_tokens},
          {"generated_tokens", engine.generated_tokens},
          {"steps", engine.num_steps},
          {"preemptions", engine.num_preemptions},
          {"rejected", num_rejected}};
}

Json request_json(const RequestStatus& request) {
  return {{"id", request.id},
          {"age_seconds", request.age_seconds},
          {"state", request.has_begun ? "decode" : "waiting"},
          {"prompt_tokens", request.prompt_tokens},
          {"cached_tokens", request.cached_tokens},
          {"output_tokens", request.output_tokens}};
}

}  // namespace

Json status_json(const ServerStatus& status) {
  Json requests = Json::array();
  for (const RequestStatus& request : status.requests) requests.push_back(request_json(request));
  return {{"state", state_name(status.lifecycle.state())},
          {"progress", status.lifecycle.progress()},
          {"uptime_seconds", std::chrono::duration<double>(status.uptime).count()},
          {"version", build::kVersion},
          {"commit", build::kCommit},
          {"model", status.model ? model_json(*status.model) : Json()},
          {"engine", status.engine ? engine_json(*status.engine, status.num_rejected) : Json()},
          {"requests", std::move(requests)}};
}

}  // namespace octet
