#include "octet/api/llm.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "octet/api/output_stream.h"
#include "octet/base/log.h"
#include "octet/base/queue.h"
#include "octet/checkpoint/hub_cache.h"
#include "octet/sampling/grammar_compiler.h"
#include "octet/text/chat_tokens.h"

namespace octet {
namespace {

// Steps whose events wait for the output thread; the engine would wait for room only if detokenising fell this far
// behind.
constexpr size_t kMaxPendingSteps = 1 << 10;

struct PendingEvent {
  std::string request_id;
  RequestEvent event;
};

// What was ended before has rows of a part of its prompt only.
void take_pooled(const Pooler& pooler, OutputStream& stream) {
  if (stream.output().outputs.front().finish_reason == FinishReason::kLength) stream.set_pooled(pooler.pooled());
}

}  // namespace

Prompt Prompt::of_text(std::string value) {
  return Prompt{.text = std::move(value), .token_ids = {}, .tokenized = false};
}
Prompt Prompt::of_token_ids(std::vector<int32_t> ids) {
  return Prompt{.text = std::nullopt, .token_ids = std::move(ids), .tokenized = true};
}

struct Llm::State {
  struct Live {
    OutputStream stream;
    OnOutput on_output;
    std::shared_ptr<const Pooler> pooler;  // nullptr: none is asked for
  };

  explicit State(const LlmOptions& options);
  ~State();
  void load_text(const LlmOptions& options);
  GrammarCompiler& grammars();
  std::vector<TextSpan> chat_spans(const Json& messages, const ChatOptions& options) const;
  void run_outputs();
  void hand_over();
  void deliver(PendingEvent pending);

  std::string folder;
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::map<std::string, std::string> special_tokens;
  GenerationConfig generation_config;
  std::string pooler_config;
  std::vector<int32_t> eos_token_ids;
  std::atomic<int64_t> next_request{0};

  std::mutex grammar_mutex;  // guards grammar_compiler, which is made when it is first needed
  std::optional<GrammarCompiler> grammar_compiler;

  std::mutex mutex;  // guards live
  std::map<std::string, std::shared_ptr<Live>> live;
  std::vector<PendingEvent> made;  // by the step; of the engine's thread
  Queue<std::vector<PendingEvent>> events{kMaxPendingSteps};
  std::unique_ptr<Engine> engine;  // after `events`: its thread pushes into them until it is gone
  std::thread output_thread;
};

Llm::State::State(const LlmOptions& options)
    : folder(resolve_model(options.model, options.revision)), pooler_config(options.pooler_config) {
  if (!pooler_config.empty()) PoolingChoice::of_config(pooler_config, {});  // what is wrong with it is known at once
  generation_config = GenerationConfig::from_folder(folder);
  if (options.tokenizing == LlmOptions::Tokenizing::kOn) load_text(options);
  EngineOptions engine_options = options.engine;
  engine_options.model_folder = folder;
  engine_options.on_delivered = [this] { hand_over(); };
  engine = std::make_unique<Engine>(engine_options);

  std::set<int32_t> eos;
  const ModelConfig& config = engine->model_config();
  eos.insert(config.eos_token_id.begin(), config.eos_token_id.end());
  eos.insert(generation_config.eos_token_id.begin(), generation_config.eos_token_id.end());
  if (tokenizer && special_tokens.count("eos_token")) {
    if (const auto id = tokenizer->token_to_id(special_tokens.at("eos_token"))) eos.insert(*id);
  }
  std::erase_if(eos, [&](int32_t id) { return id < 0 || id >= config.vocab_size; });
  eos_token_ids.assign(eos.begin(), eos.end());
  output_thread = std::thread([this] { run_outputs(); });
}

Llm::State::~State() {
  engine.reset();  // ends every request; its last events are in the queue
  events.close();
  if (output_thread.joinable()) output_thread.join();
}

void Llm::State::load_text(const LlmOptions& options) {
  const std::string text_folder = options.tokenizer.empty() ? folder : resolve_model(options.tokenizer);
  if (!std::filesystem::exists(text_folder + "/tokenizer.json")) {
    fail(ErrorCode::kModel, "{}: no tokenizer.json; name another tokenizer, or skip it and use token ids", text_folder);
  }
  tokenizer = Tokenizer::from_folder(text_folder);
  special_tokens = special_tokens_of_folder(text_folder);
  if (options.chat_template) {
    chat_template.emplace(*options.chat_template, "chat template");
  } else {
    chat_template = ChatTemplate::from_folder(text_folder);
  }
}

GrammarCompiler& Llm::State::grammars() {
  const std::lock_guard lock(grammar_mutex);
  if (grammar_compiler) return *grammar_compiler;
  if (!tokenizer) fail(ErrorCode::kInvalid, "structured output needs a tokenizer, and it was skipped");
  GrammarVocabulary vocabulary;
  vocabulary.token_bytes.resize(static_cast<size_t>(engine->model_config().vocab_size));
  const auto num_tokens = std::min(tokenizer->vocab_size(), static_cast<int32_t>(vocabulary.token_bytes.size()));
  for (int32_t id = 0; id < num_tokens; ++id) {
    if (!tokenizer->is_special(id)) vocabulary.token_bytes[static_cast<size_t>(id)] = tokenizer->token_bytes(id);
  }
  vocabulary.eos_token_ids = eos_token_ids;
  return grammar_compiler.emplace(make_grammar_builder(vocabulary), GrammarCompilerOptions{});
}

// All events of a step together: the output thread wakes once.
void Llm::State::hand_over() {
  std::vector<PendingEvent> step;
  step.swap(made);
  made.reserve(step.size());  // the next step brings about as many
  if (!events.push(std::move(step))) log_line(LogLevel::kWarning, "events came after the end");
}

void Llm::State::run_outputs() {
  pthread_setname_np(pthread_self(), "octet-output");
  while (auto step = events.pop()) {
    for (PendingEvent& pending : *step) deliver(std::move(pending));
  }
}

void Llm::State::deliver(PendingEvent pending) {
  std::shared_ptr<Live> request;
  {
    std::lock_guard lock(mutex);
    const auto it = live.find(pending.request_id);
    if (it == live.end()) return;
    request = it->second;
    if (pending.event.finished) live.erase(it);
  }
  std::vector<OutputDelta> deltas;
  request->stream.apply(pending.event, deltas);
  // The engine's answer to the last of these ends the request for the caller as well.
  for (const int32_t index : request->stream.newly_stopped()) engine->abort_sequence(pending.request_id, index);
  if (pending.event.finished && request->pooler) take_pooled(*request->pooler, request->stream);
  if (deltas.empty() && !pending.event.finished) return;  // that answer for one of several sequences
  request->on_output(request->stream.output(), deltas);
}

namespace {

// Makes the request show what its pooler needs. The engine hands rows over before the events that follow from them.
std::shared_ptr<const Pooler> pool(const SubmitOptions& options, Request& request) {
  if (!options.pooling) return nullptr;
  if (request.sampling.max_tokens != 0 || request.sampling.n != 1) {
    fail(ErrorCode::kInvalid, "pooling needs max_tokens 0 and n 1");
  }
  auto pooler = std::make_shared<Pooler>(*options.pooling);
  request.row_scope = *options.pooling == PoolingType::kMean ? Request::RowScope::kAll : Request::RowScope::kLast;
  request.on_hidden = [pooler](int64_t, std::span<const float> hidden) { pooler->add(hidden); };
  return pooler;
}

}  // namespace

Llm::Llm(const LlmOptions& options) : state_(std::make_unique<State>(options)) {}
Llm::~Llm() = default;

const Tokenizer* Llm::tokenizer() const { return state_->tokenizer ? &*state_->tokenizer : nullptr; }
const std::string& Llm::model_folder() const { return state_->folder; }
Engine& Llm::engine() { return *state_->engine; }
const std::vector<int32_t>& Llm::eos_token_ids() const { return state_->eos_token_ids; }

PoolingChoice Llm::pooling() const {
  if (state_->pooler_config.empty()) return PoolingChoice::of_folder(state_->folder);
  return PoolingChoice::of_config(state_->pooler_config, {});
}

SamplingParams Llm::default_sampling_params() const {
  const GenerationConfig& config = state_->generation_config;
  SamplingParams params;
  if (config.temperature) params.temperature = *config.temperature;
  if (config.top_p) params.top_p = *config.top_p;
  if (config.top_k) params.top_k = static_cast<int32_t>(*config.top_k);
  if (config.min_p) params.min_p = *config.min_p;
  if (config.repetition_penalty) params.repetition_penalty = *config.repetition_penalty;
  if (config.max_new_tokens) params.max_tokens = static_cast<int32_t>(*config.max_new_tokens);
  return params;
}

namespace {

ChatInputs chat_inputs(const Json& messages, const ChatOptions& options,
                       const std::map<std::string, std::string>& tokens) {
  ChatInputs inputs;
  inputs.messages = messages;
  inputs.tools = options.tools;
  inputs.add_generation_prompt = options.add_generation_prompt;
  for (const auto& [name, value] : tokens) {
    if (name == "bos_token") {
      inputs.bos_token = value;
    } else if (name == "eos_token") {
      inputs.eos_token = value;
    } else {
      inputs.extra[name] = value;
    }
  }
  if (options.template_kwargs.is_object()) inputs.extra.update(options.template_kwargs);
  return inputs;
}

}  // namespace

const std::map<std::string, std::string>& Llm::special_tokens() const { return state_->special_tokens; }

const std::string* Llm::chat_template_source() const {
  return state_->chat_template ? &state_->chat_template->source() : nullptr;
}

std::vector<TextSpan> Llm::State::chat_spans(const Json& messages, const ChatOptions& options) const {
  if (!chat_template) {
    fail(ErrorCode::kInvalid, "{}: the model has no chat template; give one, or use plain prompts", folder);
  }
  std::vector<TextSpan> spans = chat_template->render_spans(chat_inputs(messages, options, special_tokens));
  if (options.continue_final_message) cut_after_final_message(spans, messages);
  return spans;
}

std::string Llm::render_chat(const Json& messages, const ChatOptions& options) const {
  std::string text;
  for (const TextSpan& span : state_->chat_spans(messages, options)) text += span.text;
  return text;
}

std::shared_ptr<const Grammar> Llm::compile_grammar(const GrammarSpec& spec) const {
  return state_->grammars().compile(spec);
}

Prompt Llm::chat_prompt(const Json& messages, const ChatOptions& options) const {
  if (!state_->tokenizer) fail(ErrorCode::kInvalid, "chat needs a tokenizer, and it was skipped");
  Prompt prompt;
  if (options.user_special_tokens == ChatOptions::UserSpecialTokens::kParsed) {
    prompt.text = render_chat(messages, options);
    prompt.token_ids = state_->tokenizer->encode(*prompt.text, AddSpecialTokens::kNo);
  } else {
    const auto spans = state_->chat_spans(messages, options);
    prompt.text.emplace();
    for (const TextSpan& span : spans) *prompt.text += span.text;
    // The template writes BOS itself where the model wants one.
    prompt.token_ids = state_->tokenizer->encode_spans(spans, AddSpecialTokens::kNo);
  }
  prompt.tokenized = true;
  return prompt;
}

std::string Llm::submit(const Prompt& prompt, const SamplingParams& params, OnOutput on_output,
                        const SubmitOptions& options) {
  State& state = *state_;
  Request request;
  request.id = fmt::format("req-{}", state.next_request.fetch_add(1));
  request.sampling = params;
  request.eos_token_ids = state.eos_token_ids;
  if (params.grammar) request.grammar = compile_grammar(*params.grammar);
  request.priority = options.priority;
  request.cache_salt = options.cache_salt;
  if (prompt.tokenized) {
    request.prompt_token_ids = prompt.token_ids;
  } else {
    if (!state.tokenizer)
      fail(ErrorCode::kInvalid, "a text prompt needs a tokenizer, and it was skipped: give prompt_token_ids");
    request.prompt_token_ids = state.tokenizer->encode(prompt.text.value_or(""), AddSpecialTokens::kYes);
  }
  if (!params.stop.empty() && !(state.tokenizer && params.detokenize)) {
    fail(ErrorCode::kInvalid, "stop strings need detokenisation (a tokenizer and detokenize=True)");
  }
  RequestOutput start;
  start.request_id = request.id;
  start.prompt = prompt.text;
  start.prompt_token_ids = request.prompt_token_ids;
  auto live = std::make_shared<State::Live>(State::Live{.stream = OutputStream(tokenizer(), params, std::move(start)),
                                                        .on_output = std::move(on_output),
                                                        .pooler = pool(options, request)});
  {
    std::lock_guard lock(state.mutex);
    state.live.emplace(request.id, std::move(live));
  }
  request.on_event = [&state, id = request.id](RequestEvent event) {
    state.made.push_back(PendingEvent{id, std::move(event)});
  };
  const std::string id = request.id;
  try {
    SubmitResult result;
    while ((result = state.engine->submit(request)) == SubmitResult::kQueueFull) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (result == SubmitResult::kStopped) fail(ErrorCode::kInternal, "the engine has stopped");
  } catch (...) {
    std::lock_guard lock(state.mutex);
    state.live.erase(id);
    throw;
  }
  return id;
}

void Llm::abort(const std::string& request_id) { state_->engine->abort(request_id); }
void Llm::abort_waiting(const std::string& request_id) { state_->engine->abort_waiting(request_id); }

std::vector<RequestOutput> Llm::generate(std::span<const Prompt> prompts, std::span<const SamplingParams> params,
                                         const std::function<void(const RequestOutput&)>& on_done) {
  if (params.size() != 1 && params.size() != prompts.size()) {
    fail(ErrorCode::kInvalid, "{} sampling params for {} prompts: give one, or one per prompt", params.size(),
         prompts.size());
  }
  std::vector<RequestOutput> outputs(prompts.size());
  std::mutex mutex;
  std::condition_variable finished;
  size_t num_finished = 0;
  const auto wait_for = [&](size_t count) {
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return num_finished == count; });
  };
  std::vector<std::string> ids;
  try {
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto on_output = [&, i](const RequestOutput& output, std::span<const OutputDelta>) {
        if (!output.finished) return;
        std::lock_guard lock(mutex);
        outputs[i] = output;
        ++num_finished;
        if (on_done) on_done(output);
        finished.notify_all();
      };
      ids.push_back(submit(prompts[i], params[params.size() == 1 ? 0 : i], on_output));
    }
  } catch (...) {  // the callbacks refer to this frame: end what has been started before leaving it
    for (const std::string& id : ids) abort(id);
    wait_for(ids.size());
    throw;
  }
  wait_for(prompts.size());
  return outputs;
}

RequestOutput Llm::generate(const Prompt& prompt, const SamplingParams& params) {
  return generate(std::span(&prompt, 1), std::span(&params, 1)).front();
}

}  // namespace octet
