// The routes of ApiServer that are for those who run it: what it is, whether it can generate, and what it shall drop.
#include <algorithm>

#include "octet/base/build_facts.h"
#include "octet/server/api_server.h"
#include "octet/server/json_body.h"

namespace octet {
namespace {

Json engine_json(const EngineReport& report) {
  return {{"architecture", report.architecture},
          {"device", report.device},
          {"dtype", report.dtype},
          {"quantization", report.quantization},
          {"kv_cache_dtype", report.kv_cache_dtype},
          {"num_parameters", report.num_parameters},
          {"weight_bytes", report.weight_bytes},
          {"kv_cache_bytes", report.kv_cache_bytes},
          {"kv_cache_tokens", report.kv_cache_tokens},
          {"num_kv_blocks", report.num_kv_blocks},
          {"activation_bytes", report.activation_bytes},
          {"workspace_bytes", report.workspace_bytes},
          {"max_num_seqs", report.max_num_seqs},
          {"max_num_batched_tokens", report.max_step_tokens},
          {"num_graphs", report.num_graphs},
          {"load_seconds", report.load_seconds},
          {"start_seconds", report.start_seconds}};
}

}  // namespace

// What was decided at the start. No key, no header, no prompt is in it.
void ApiServer::get_server_info(Call& call) {
  const ServedModel* served = model();
  const RequestLimits& limits = served->facts().limits;
  send_json(call, 200,
            {{"version", build::kVersion},
             {"commit", build::kCommit},
             {"model_path", served->root()},
             {"served_model_name", served->facts().names},
             {"system_fingerprint", served->fingerprint()},
             {"max_model_len", served->facts().max_model_len},
             {"engine", engine_json(served->llm().engine().report())},
             {"limits",
              {{"max_sequences", options_.max_sequences},
               {"max_waiting_tokens", options_.max_waiting_tokens},
               {"max_queue_seconds", options_.max_queue_time.count()},
               {"max_prompts", limits.max_prompts},
               {"max_n", limits.max_n},
               {"max_logprobs", limits.max_logprobs},
               {"max_stops", limits.max_stops},
               {"max_messages", limits.max_messages}}},
             {"needs_api_key", keys_.required()}});
}

// One token is generated, past the queue of the others only in being short.
void ApiServer::get_health_generate(Call& call) {
  const ServedModel* served = model();
  const auto reply = call.reply;
  const auto on_output = [reply](const RequestOutput& output, std::span<const OutputDelta>) {
    if (!output.finished) return;
    const FinishReason reason = output.outputs.front().finish_reason;
    if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
      return reply->send(json_response(200, {{"status", "ok"}}));
    }
    reply->send(error_response({503, "unavailable", "No token could be generated."}));
  };
  const std::vector<int32_t>& eos = served->llm().eos_token_ids();
  const Prompt prompt = Prompt::of_token_ids({eos.empty() ? 0 : eos.front()});
  const std::string id = served->llm().submit(
      prompt, {.temperature = 0.0, .ignore_eos = true, .max_tokens = 1, .detokenize = false}, on_output);
  HttpReplyEvents events;
  events.on_gone = [&llm = served->llm(), id] { llm.abort(id); };
  reply->watch(std::move(events));
}

void ApiServer::post_reset_prefix_cache(Call& call) {
  model()->llm().engine().reset_prefix_cache();
  send_json(call, 200, {{"success", true}});
}

// vLLM's body: the ids of requests, as answers and x-request-id say them; or SGLang's abort_all.
void ApiServer::post_abort_requests(Call& call) {
  const Json body = parse_body(std::move(call.request->body));
  Fields fields(body, "");
  const bool all = fields.boolean("abort_all").value_or(false);
  const Json* ids = fields.raw("request_ids");
  if (!ids && !all) {
    throw ApiError(400, "missing_required_parameter", "request_ids: is required, or abort_all", "request_ids");
  }
  if (ids && !ids->is_array()) fail_field("request_ids", "must be a list, was {}", described(*ids));
  for (size_t i = 0; ids && i < ids->size(); ++i) {
    if (!(*ids)[i].is_string()) fail_field(fmt::format("request_ids[{}]", i), "must be a string");
  }
  const auto wanted = [&](const Generation& generation) {
    return all || std::any_of(ids->begin(), ids->end(),
                              [&](const Json& id) { return generation.is_called(id.get_ref<const std::string&>()); });
  };
  const auto now = std::chrono::steady_clock::now();
  int64_t count = 0;
  for (const auto& generation : living()) {
    if (!wanted(*generation) || !generation->status(now)) continue;
    generation->abort();
    ++count;
  }
  send_json(call, 200, {{"num_aborted", count}});
}

}  // namespace octet
