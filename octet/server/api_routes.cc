// The routes of ApiServer: what each answers.
#include <chrono>

#include "octet/base/build_facts.h"
#include "octet/server/api_server.h"
#include "octet/server/embedding_answer.h"
#include "octet/server/json_body.h"
#include "octet/server/messages_answer.h"
#include "octet/server/messages_request.h"
#include "octet/server/openai_answer.h"
#include "octet/server/openapi.h"
#include "octet/server/page_route.h"
#include "octet/server/responses_answer.h"
#include "octet/server/responses_request.h"
#include "octet/server/server_status.h"

namespace octet {
namespace {

int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

AnswerOptions answer_options(const GenerationRequest& request, const ServedModel& model) {
  return {.logprobs = request.sampling.logprobs.has_value(),
          .num_logprobs = request.sampling.logprobs.value_or(0),
          .prompt_logprobs = request.sampling.prompt_logprobs.has_value() && !request.echo,
          .return_token_ids = request.return_token_ids,
          .return_tokens_as_token_ids = request.return_tokens_as_token_ids,
          .include_usage = request.include_usage,
          .continuous_usage = request.continuous_usage,
          .tokenizer = model.llm().tokenizer()};
}

ReasoningStyle reasoning_of(const ChatRequest& request, const Prompt& prompt, const ServedModel& model) {
  const std::string* source = model.llm().chat_template_source();
  if (!source || request.options.continue_final_message) return ReasoningStyle::kNone;
  return reasoning_style_of(*source, prompt.text.value_or(""));
}

// Nothing where there is nothing to take apart.
std::optional<OutputSplitter> splitter_of(const ChatRequest& request, ReasoningStyle reasoning,
                                          const ServedModel& model) {
  const ToolStyle tools = request.may_call_tools ? model.facts().tool_style : ToolStyle::kNone;
  if (request.must_call_tools) return OutputSplitter(call_form(model.facts().tool_style), reasoning);
  if (tools == ToolStyle::kNone && reasoning == ReasoningStyle::kNone) return std::nullopt;
  return OutputSplitter(tools, reasoning);
}

Json model_json(const ServedModel& model, const std::string& name) {
  const EngineReport& report = model.llm().engine().report();
  const Json permission = {{"id", "modelperm-" + name},
                           {"object", "model_permission"},
                           {"created", model.created()},
                           {"allow_create_engine", false},
                           {"allow_sampling", true},
                           {"allow_logprobs", true},
                           {"allow_search_indices", false},
                           {"allow_view", true},
                           {"allow_fine_tuning", false},
                           {"organization", "*"},
                           {"group", nullptr},
                           {"is_blocking", false}};
  return {{"id", name},
          {"object", "model"},
          {"created", model.created()},
          {"owned_by", "vllm"},  // routers take the dialect from it
          {"root", model.root()},
          {"parent", nullptr},
          {"max_model_len", model.facts().max_model_len},
          {"permission", Json::array({permission})},
          {"meta",
           {{"architecture", report.architecture},
            {"n_params", report.num_parameters},
            {"n_vocab", model.facts().vocab_size},
            {"n_ctx_train", model.llm().engine().model_config().max_position_embeddings},
            {"n_embd", model.llm().engine().model_config().hidden_size},
            {"size", report.weight_bytes},
            {"quantization", report.quantization},
            {"dtype", report.dtype},
            {"kv_cache_dtype", report.kv_cache_dtype}}}};
}

Json rendered(const Prompt& prompt, const ServedModel& model) {
  return {{"model", model.facts().names.front()},
          {"prompt", prompt.text ? Json(*prompt.text) : Json()},
          {"prompt_token_ids", prompt.token_ids},
          {"count", prompt.token_ids.size()},
          {"max_model_len", model.facts().max_model_len}};
}

}  // namespace

std::vector<Route> ApiServer::routes() {
  using Access = Route::Access;
  using Where = Route::Where;
  using Needs = Route::Needs;
  const auto to = [this](void (ApiServer::*method)(Call&)) {
    return [this, method](Call& call) { (this->*method)(call); };
  };
  constexpr auto kOpen = Access::kOpen;
  constexpr auto kKey = Access::kKey;
  constexpr auto kAdmin = Access::kAdmin;
  constexpr auto kInline = Where::kInline;
  constexpr auto kWorker = Where::kWorker;
  constexpr auto kAnthropic = ErrorWording::kAnthropic;
  std::vector<Route> routes = {
      {"GET", "/health", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_health)},
      {"GET", "/ready", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_health)},
      {"GET", "/live", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_live)},
      {"GET", "/ping", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_health)},
      {"POST", "/ping", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_health)},
      {"GET", "/version", kOpen, kInline, Needs::kNothing, to(&ApiServer::get_version)},
      {"GET", "/load", kKey, kInline, Needs::kNothing, to(&ApiServer::get_load)},
      {"GET", "/metrics", kKey, kWorker, Needs::kNothing, to(&ApiServer::get_metrics)},
      {"GET", "/openapi.json", kKey, kWorker, Needs::kNothing, to(&ApiServer::get_openapi)},
      {"GET", "/api/status", kKey, kWorker, Needs::kNothing, to(&ApiServer::get_status)},
      {"GET", "/v1/models", kKey, kInline, Needs::kModel, to(&ApiServer::get_models)},
      {"GET", "/v1/models/*", kKey, kInline, Needs::kModel, to(&ApiServer::get_model)},
      {"GET", "/tokenizer_info", kKey, kInline, Needs::kModel, to(&ApiServer::get_tokenizer_info)},
      {"POST", "/v1/completions", kKey, kWorker, Needs::kPlace, to(&ApiServer::post_completions)},
      {"POST", "/v1/chat/completions", kKey, kWorker, Needs::kPlace, to(&ApiServer::post_chat)},
      {"POST", "/v1/messages", kKey, kWorker, Needs::kPlace, to(&ApiServer::post_messages), kAnthropic},
      {"POST", "/v1/messages/count_tokens", kKey, kWorker, Needs::kModel, to(&ApiServer::post_count_tokens),
       kAnthropic},
      {"POST", "/v1/responses", kKey, kWorker, Needs::kPlace, to(&ApiServer::post_responses)},
      {"POST", "/v1/embeddings", kKey, kWorker, Needs::kPlace, to(&ApiServer::post_embeddings)},
      {"POST", "/v1/completions/render", kKey, kWorker, Needs::kModel, to(&ApiServer::post_completions_render)},
      {"POST", "/v1/chat/completions/render", kKey, kWorker, Needs::kModel, to(&ApiServer::post_chat_render)},
      {"GET", "/health_generate", kKey, kWorker, Needs::kModel, to(&ApiServer::get_health_generate)},
      {"GET", "/server_info", kKey, kInline, Needs::kModel, to(&ApiServer::get_server_info)},
      {"POST", "/abort_requests", kAdmin, kWorker, Needs::kModel, to(&ApiServer::post_abort_requests)},
      {"POST", "/reset_prefix_cache", kAdmin, kWorker, Needs::kModel, to(&ApiServer::post_reset_prefix_cache)},
      {"POST", "/tokenize", kKey, kWorker, Needs::kModel, to(&ApiServer::post_tokenize)},
      {"POST", "/detokenize", kKey, kWorker, Needs::kModel, to(&ApiServer::post_detokenize)},
  };
  if (!options_.page) return routes;
  for (const char* path : {"/", "/page/*"}) {
    routes.push_back({"GET", path, kOpen, kInline, Needs::kNothing, to(&ApiServer::get_page)});
  }
  return routes;
}

void ApiServer::send_json(Call& call, int status, const Json& body) { call.reply->send(json_response(status, body)); }

void ApiServer::get_health(Call& call) {
  const Lifecycle::Health health = lifecycle_.ready(engine_metrics(), faulty(), now_us());
  send_json(call, health.status, health.body);
}

void ApiServer::get_live(Call& call) {
  const Lifecycle::Health health = lifecycle_.alive(engine_metrics(), faulty(), now_us());
  send_json(call, health.status, health.body);
}

void ApiServer::get_version(Call& call) {
  send_json(call, 200, {{"version", build::kVersion}, {"commit", build::kCommit}, {"engine", "octet"}});
}

void ApiServer::get_load(Call& call) { send_json(call, 200, {{"server_load", num_requests()}}); }

void ApiServer::get_metrics(Call& call) {
  const auto engine = engine_metrics();
  call.reply->send({.status = 200,
                    .headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                    .body = metrics_.text(engine ? &*engine : nullptr, server_counts())});
}

void ApiServer::get_openapi(Call& call) { send_json(call, 200, openapi_document(build::kVersion)); }

void ApiServer::get_page(Call& call) {
  for (const PageFile& file : page_files()) {
    if (file.path == call.request->path) return call.reply->send(page_response(file, *call.request));
  }
  throw ApiError(404, "not_found_error", "Not Found");
}

void ApiServer::get_status(Call& call) {
  std::vector<RequestStatus> requests;
  const auto now = std::chrono::steady_clock::now();
  for (const auto& generation : living()) {
    if (auto status = generation->status(now)) requests.push_back(*std::move(status));
  }
  send_json(call, 200,
            status_json({.lifecycle = lifecycle_,
                         .model = model(),
                         .engine = engine_metrics(),
                         .uptime = now - started_,
                         .num_rejected = admission_.num_rejected(),
                         .requests = requests}));
}

void ApiServer::get_models(Call& call) {
  const ServedModel* served = model();
  Json list = Json::array();
  for (const std::string& name : served->facts().names) list.push_back(model_json(*served, name));
  send_json(call, 200, {{"object", "list"}, {"data", std::move(list)}});
}

void ApiServer::get_model(Call& call) {
  const ServedModel* served = model();
  for (const std::string& name : served->facts().names) {
    if (name == call.tail) return send_json(call, 200, model_json(*served, name));
  }
  throw ApiError(404, "model_not_found", fmt::format("The model `{}` does not exist.", shortened(call.tail)), "model");
}

void ApiServer::get_tokenizer_info(Call& call) {
  const ServedModel* served = model();
  if (!served->llm().tokenizer()) throw ApiError(400, "not_supported_error", "This server has no tokenizer.");
  Json body = Json::object();
  for (const char* name : {"bos_token", "eos_token", "pad_token", "unk_token"}) body[name] = nullptr;
  for (const auto& [name, text] : served->llm().special_tokens()) body[name] = text;
  const std::string* source = served->llm().chat_template_source();
  body["chat_template"] = source ? Json(*source) : Json();
  body["vocab_size"] = served->facts().vocab_size;
  body["model_max_length"] = served->facts().max_model_len;
  body["tokenizer_class"] = "PreTrainedTokenizerFast";
  send_json(call, 200, body);
}

ServerCounts ApiServer::server_counts() const {
  ServerCounts counts{.rejected = admission_.num_rejected(), .traces_exported = {}, .traces_dropped = {}};
  if (tracer_) {
    counts.traces_exported = tracer_->num_exported();
    counts.traces_dropped = tracer_->num_dropped();
  }
  return counts;
}

Admission::Ticket ApiServer::enter(int64_t num_sequences) {
  auto ticket = admission_.enter(num_sequences);
  if (!ticket) throw ApiError(503, "queue_full", admission_.full().value_or("The server is full."));
  return *std::move(ticket);
}

void ApiServer::generate(Call& call, const ServedModel& served, GenerationJob job) {
  job.arrival = call.request->arrival;
  const bool named = call.request->header("x-request-id").empty() && !job.request.request_id.empty();
  job.request_id = named ? job.request.request_id : call.request_id;
  if (tracer_) {
    job.trace = trace_of(call.request->header("traceparent"), call.request->header("tracestate"));
    job.tracer = tracer_.get();
  }
  for (const Prompt& prompt : job.prompts) {
    job.ticket.add_waiting_tokens(static_cast<int64_t>(prompt.token_ids.size()));
  }
  const auto generation = std::make_shared<Generation>(served, metrics_, call.reply, std::move(job));
  {
    const std::lock_guard lock(mutex_);
    generations_.push_back(generation);
  }
  generation->start();
}

void ApiServer::post_completions(Call& call) {
  const ServedModel* served = model();
  CompletionRequest request = read_completion(parse_body(std::move(call.request->body)), served->facts());
  call.request->body_reservation.reset();
  GenerationJob job;
  job.ticket = enter(static_cast<int64_t>(request.prompts.size()) * request.generation.sampling.n);
  served->check_grammar(request.generation);
  job.prompts = served->prompts(request);
  job.format = completion_format(answer_options(request.generation, *served));
  job.request = std::move(request.generation);
  generate(call, *served, std::move(job));
}

void ApiServer::post_chat(Call& call) {
  const ServedModel* served = model();
  ChatRequest request = read_chat(parse_body(std::move(call.request->body)), served->facts());
  auto format = chat_format(answer_options(request.generation, *served));
  answer_chat(call, std::move(request), std::move(format));
}

void ApiServer::post_messages(Call& call) {
  ChatRequest request = read_messages_request(parse_body(std::move(call.request->body)), model()->facts());
  answer_chat(call, std::move(request), messages_format());
}

void ApiServer::post_responses(Call& call) {
  const ServedModel* served = model();
  ResponsesRequest request = read_responses_request(parse_body(std::move(call.request->body)), served->facts());
  auto format = responses_format(std::move(request.echo), answer_options(request.chat.generation, *served));
  answer_chat(call, std::move(request.chat), std::move(format));
}

void ApiServer::post_embeddings(Call& call) {
  const ServedModel* served = model();
  const EmbeddingRequest request = read_embedding(parse_body(std::move(call.request->body)), served->facts());
  call.request->body_reservation.reset();
  const PoolingChoice pooling = served->llm().pooling();
  GenerationJob job;
  job.ticket = enter(static_cast<int64_t>(request.texts.prompts.size()));
  job.prompts = served->prompts(request.texts);
  job.pooling = pooling.type;
  job.format = embedding_format({.encoding = request.encoding,
                                 .dimensions = request.dimensions,
                                 .normalize = request.normalize.value_or(pooling.normalize)});
  job.request = request.texts.generation;
  generate(call, *served, std::move(job));
}

void ApiServer::post_count_tokens(Call& call) {
  const ServedModel* served = model();
  const ChatRequest request = read_count_tokens(parse_body(std::move(call.request->body)), served->facts());
  const Prompt prompt = served->chat_prompt(request.messages, request.options, AddSpecialTokens::kNo);
  send_json(call, 200, {{"input_tokens", prompt.token_ids.size()}});
}

void ApiServer::answer_chat(Call& call, ChatRequest request, std::unique_ptr<AnswerFormat> format) {
  const ServedModel* served = model();
  call.request->body_reservation.reset();
  GenerationJob job;
  job.ticket = enter(request.generation.sampling.n);
  job.prompts.push_back(served->prompt(request));
  if (request.generation.echo) job.echo = plain_messages(request.messages).back()["content"].get<std::string>();
  const ReasoningStyle reasoning = reasoning_of(request, job.prompts.back(), *served);
  if (auto& grammar = request.generation.sampling.grammar) grammar = after_reasoning(*grammar, reasoning);
  served->check_grammar(request.generation);
  job.splitter = splitter_of(request, reasoning, *served);
  job.calls_named_tool = request.calls_named_tool;
  job.include_reasoning = request.include_reasoning;
  job.format = std::move(format);
  job.request = std::move(request.generation);
  generate(call, *served, std::move(job));
}

void ApiServer::post_completions_render(Call& call) {
  const ServedModel* served = model();
  const CompletionRequest request = read_completion(parse_body(std::move(call.request->body)), served->facts());
  Json list = Json::array();
  for (const Prompt& prompt : served->prompts(request)) list.push_back(rendered(prompt, *served));
  send_json(call, 200, list);
}

void ApiServer::post_chat_render(Call& call) {
  const ServedModel* served = model();
  const ChatRequest request = read_chat(parse_body(std::move(call.request->body)), served->facts());
  send_json(call, 200, rendered(served->prompt(request), *served));
}

void ApiServer::post_tokenize(Call& call) {
  const ServedModel* served = model();
  const Json body = parse_body(std::move(call.request->body));
  Fields fields(body, "");
  read_model(fields, served->facts());
  const bool with_strings = fields.boolean("return_token_strs").value_or(false);
  Prompt prompt;
  if (fields.raw("messages")) {
    const Json messages = read_messages(fields, served->facts().limits);
    ChatOptions options;
    read_template_options(fields, messages, options);
    const bool add = fields.boolean("add_special_tokens").value_or(false);
    prompt = served->chat_prompt(messages, options, add ? AddSpecialTokens::kYes : AddSpecialTokens::kNo);
  } else {
    auto text = fields.string("prompt", SIZE_MAX);
    if (!text) text = fields.string("content", SIZE_MAX);  // llama-server's name
    if (!text) throw ApiError(400, "missing_required_parameter", "prompt: is required, or messages", "prompt");
    const bool add = fields.boolean("add_special_tokens").value_or(true);
    if (!text->empty())
      prompt = served->text_prompt(*text, add ? AddSpecialTokens::kYes : AddSpecialTokens::kNo, "prompt");
  }
  Json strings;
  if (with_strings) {
    strings = Json::array();
    for (const int32_t id : prompt.token_ids) strings.push_back(served->llm().tokenizer()->id_to_token(id));
  }
  send_json(call, 200,
            {{"count", prompt.token_ids.size()},
             {"max_model_len", served->facts().max_model_len},
             {"tokens", prompt.token_ids},
             {"token_strs", std::move(strings)}});
}

void ApiServer::post_detokenize(Call& call) {
  const ServedModel* served = model();
  const Json body = parse_body(std::move(call.request->body));
  Fields fields(body, "");
  read_model(fields, served->facts());
  if (!fields.raw("tokens")) throw ApiError(400, "missing_required_parameter", "tokens: is required", "tokens");
  if (!served->llm().tokenizer()) throw ApiError(400, "not_supported_error", "This server has no tokenizer.");
  const auto ids = fields.token_ids("tokens", served->llm().tokenizer()->vocab_size());
  send_json(call, 200, {{"prompt", served->llm().tokenizer()->decode(ids, SpecialTokens::kKeep)}});
}

}  // namespace octet
