// octet._octet: the C++ API as the Python package sees it. Thin: names and defaults of vLLM's classes are made in
// Python. The GIL is released while the engine works; Ctrl-C aborts what is running.
#include <nanobind/nanobind.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <condition_variable>
#include <mutex>

#include "octet/api/llm.h"
#include "octet/base/build_facts.h"
#include "octet/base/log.h"
#include "python/bind_async.h"
#include "python/bind_quantize.h"
#include "python/prompt_value.h"

namespace nb = nanobind;

namespace octet {
namespace {

Json json_argument(const std::string& text, const char* what) {
  return text.empty() ? Json(nullptr) : parse_json(text, what);
}

// One call of generate: collects outputs in input order while the caller waits without the GIL.
class Collector {
 public:
  explicit Collector(size_t count) : outputs_(count) {}

  OnOutput sink(size_t index) {
    return [this, index](const RequestOutput& output, std::span<const OutputDelta>) {
      if (!output.finished) return;
      std::lock_guard lock(mutex_);
      outputs_[index] = output;
      ++num_finished_;
      changed_.notify_all();
    };
  }

  // Waits for `count` results. `poll(num_finished)` runs about ten times a second; it may throw.
  template <class Poll>
  void wait_for(size_t count, Poll poll) {
    std::unique_lock lock(mutex_);
    while (num_finished_ < count) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      const size_t now = num_finished_;
      lock.unlock();
      poll(now);
      lock.lock();
    }
  }

  std::vector<RequestOutput> take() { return std::move(outputs_); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestOutput> outputs_;
  size_t num_finished_ = 0;
};

void check_python_signals() {
  nb::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

std::vector<RequestOutput> generate(Llm& llm, std::vector<Prompt> prompts, const std::vector<SamplingParams>& params,
                                    const std::optional<std::function<void(size_t)>>& on_progress,
                                    const std::vector<int32_t>& priorities,
                                    std::optional<PoolingType> pooling = std::nullopt) {
  if (params.size() != prompts.size())
    fail(ErrorCode::kInvalid, "{} sampling params for {} prompts", params.size(), prompts.size());
  const nb::gil_scoped_release release;
  Collector collector(prompts.size());
  std::vector<std::string> ids;
  const auto poll = [&](size_t num_finished) {
    check_python_signals();
    if (!on_progress) return;
    nb::gil_scoped_acquire gil;
    (*on_progress)(num_finished);
  };
  try {
    for (size_t i = 0; i < prompts.size(); ++i) {
      const SubmitOptions options{
          .priority = priorities.empty() ? 0 : priorities[i], .cache_salt = {}, .pooling = pooling};
      ids.push_back(llm.submit(prompts[i], params[i], collector.sink(i), options));
    }
    collector.wait_for(prompts.size(), poll);
  } catch (...) {  // the sinks refer to this frame: end everything before leaving it
    for (const std::string& id : ids) llm.abort(id);
    collector.wait_for(ids.size(), [](size_t) {});
    throw;
  }
  return collector.take();
}

// The token ids and the vector of every prompt.
std::vector<std::pair<std::vector<int32_t>, std::vector<float>>> embed(
    Llm& llm, std::vector<PromptValue> values, const std::optional<std::function<void(size_t)>>& on_progress,
    int64_t dimensions, std::optional<bool> normalize) {
  const PoolingChoice pooling = llm.pooling();
  const int64_t most = llm.engine().model_config().hidden_size;
  if (dimensions < 0 || dimensions > most) {
    fail(ErrorCode::kInvalid, "dimensions: must be from 1 to {}, was {}", most, dimensions);
  }
  SamplingParams params;
  params.max_tokens = 0;
  std::vector<Prompt> prompts;
  for (PromptValue& value : values) prompts.push_back(to_prompt(std::move(value)));
  const std::vector<SamplingParams> all(prompts.size(), params);
  std::vector<std::pair<std::vector<int32_t>, std::vector<float>>> results;
  for (RequestOutput& output : generate(llm, std::move(prompts), all, on_progress, {}, pooling.type)) {
    if (output.pooled.empty()) fail(ErrorCode::kInternal, "no vector: {}", output.outputs.front().error);
    results.emplace_back(std::move(output.prompt_token_ids),
                         finished_embedding(output.pooled, dimensions, normalize.value_or(pooling.normalize)));
  }
  return results;
}

std::unique_ptr<Llm> make_llm(const LlmOptions& options) {
  const nb::gil_scoped_release release;
  return std::make_unique<Llm>(options);
}

void bind_errors(nb::module_& m) {
  // ValueError for a request's or argument's content, RuntimeError otherwise, MemoryError where something does not fit.
  static nb::exception<Error> base(m, "OctetError", PyExc_RuntimeError);
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyObject* type = base.ptr();
      if (error.code() == ErrorCode::kInvalid || error.code() == ErrorCode::kUsage) type = PyExc_ValueError;
      if (error.code() == ErrorCode::kMemory) type = PyExc_MemoryError;
      PyErr_SetString(type, error.what());
    }
  });
}

GrammarSpec::Kind grammar_kind(const std::string& name) {
  using Kind = GrammarSpec::Kind;
  static const std::map<std::string, Kind> kKinds = {{"json", Kind::kJson},
                                                     {"json_schema", Kind::kJsonSchema},
                                                     {"regex", Kind::kRegex},
                                                     {"ebnf", Kind::kEbnf},
                                                     {"structural_tag", Kind::kStructuralTag}};
  const auto found = kKinds.find(name);
  if (found == kKinds.end()) fail(ErrorCode::kInvalid, "no kind of grammar is called \"{}\"", name);
  return found->second;
}

void bind_sampling(nb::module_& m) {
  nb::class_<SamplingParams>(m, "SamplingParams")
      .def(nb::init<>())
      .def_rw("n", &SamplingParams::n)
      .def_rw("temperature", &SamplingParams::temperature)
      .def_rw("top_p", &SamplingParams::top_p)
      .def_rw("top_k", &SamplingParams::top_k)
      .def_rw("min_p", &SamplingParams::min_p)
      .def_rw("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_rw("presence_penalty", &SamplingParams::presence_penalty)
      .def_rw("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_rw("seed", &SamplingParams::seed, nb::arg().none())
      .def_rw("stop", &SamplingParams::stop)
      .def_rw("stop_token_ids", &SamplingParams::stop_token_ids)
      .def_rw("include_stop_str_in_output", &SamplingParams::include_stop_str_in_output)
      .def_rw("ignore_eos", &SamplingParams::ignore_eos)
      .def_rw("max_tokens", &SamplingParams::max_tokens, nb::arg().none())
      .def_rw("min_tokens", &SamplingParams::min_tokens)
      .def_rw("logprobs", &SamplingParams::logprobs, nb::arg().none())
      .def_rw("prompt_logprobs", &SamplingParams::prompt_logprobs, nb::arg().none())
      .def_rw("logit_bias", &SamplingParams::logit_bias)
      .def_rw("allowed_token_ids", &SamplingParams::allowed_token_ids)
      .def("set_grammar",
           [](SamplingParams& params, const std::string& kind, std::string text) {
             params.grammar = GrammarSpec{.kind = grammar_kind(kind), .text = std::move(text)};
           })
      .def("set_choice", [](SamplingParams& params,
                            const std::vector<std::string>& choices) { params.grammar = choice_grammar(choices); })
      .def_rw("skip_special_tokens", &SamplingParams::skip_special_tokens)
      .def_rw("detokenize", &SamplingParams::detokenize);
}

void bind_outputs(nb::module_& m) {
  nb::class_<TokenLogprob>(m, "TokenLogprob")
      .def_ro("token_id", &TokenLogprob::token_id)
      .def_ro("logprob", &TokenLogprob::logprob)
      .def_ro("rank", &TokenLogprob::rank);
  nb::class_<CompletionOutput>(m, "CompletionOutput")
      .def_ro("index", &CompletionOutput::index)
      .def_ro("text", &CompletionOutput::text)
      .def_ro("token_ids", &CompletionOutput::token_ids)
      .def_ro("cumulative_logprob", &CompletionOutput::cumulative_logprob)
      .def_ro("logprobs", &CompletionOutput::logprobs)
      .def_ro("error", &CompletionOutput::error)
      .def_prop_ro("finish_reason", [](const CompletionOutput& o) { return finish_reason_name(o.finish_reason); })
      .def_prop_ro("stop_reason", [](const CompletionOutput& o) -> nb::object {
        if (const auto* id = std::get_if<int32_t>(&o.stop_reason)) return nb::cast(*id);
        if (const auto* text = std::get_if<std::string>(&o.stop_reason)) return nb::cast(*text);
        return nb::none();
      });
  nb::class_<RequestOutput>(m, "RequestOutput")
      .def_ro("request_id", &RequestOutput::request_id)
      .def_ro("prompt", &RequestOutput::prompt)
      .def_ro("prompt_token_ids", &RequestOutput::prompt_token_ids)
      .def_ro("prompt_logprobs", &RequestOutput::prompt_logprobs)
      .def_ro("outputs", &RequestOutput::outputs)
      .def_ro("num_cached_tokens", &RequestOutput::num_cached_tokens)
      .def_ro("finished", &RequestOutput::finished)
      .def_prop_ro("arrival_us", [](const RequestOutput& o) { return o.times.arrival_us; })
      .def_prop_ro("first_scheduled_us", [](const RequestOutput& o) { return o.times.first_scheduled_us; })
      .def_prop_ro("first_token_us", [](const RequestOutput& o) { return o.times.first_token_us; })
      .def_prop_ro("last_token_us", [](const RequestOutput& o) { return o.times.last_token_us; });
}

template <class Owner, class Value>
auto engine_field(Value EngineOptions::*field) {
  return [field](Owner& owner, Value value) { owner.engine.*field = std::move(value); };
}

void bind_options(nb::module_& m) {
  const auto option = [](auto field) { return engine_field<LlmOptions>(field); };
  nb::class_<LlmOptions>(m, "LlmOptions")
      .def(
          "__init__",
          [](LlmOptions* self, bool offline) {
            new (self) LlmOptions();
            if (offline) self->engine.workload = EngineOptions::Workload::kOffline;
          },
          nb::arg("offline"))
      .def_rw("model", &LlmOptions::model)
      .def_rw("revision", &LlmOptions::revision)
      .def_rw("tokenizer", &LlmOptions::tokenizer)
      .def_rw("pooler_config", &LlmOptions::pooler_config)
      .def_rw("chat_template", &LlmOptions::chat_template, nb::arg().none())
      .def("set_skip_tokenizer_init",
           [](LlmOptions& o, bool skip) {
             o.tokenizing = skip ? LlmOptions::Tokenizing::kOff : LlmOptions::Tokenizing::kOn;
           })
      .def("set_device", option(&EngineOptions::device))
      .def("set_deterministic", option(&EngineOptions::deterministic))
      .def("set_enforce_eager", option(&EngineOptions::enforce_eager))
      .def("set_gpu_memory_utilization", option(&EngineOptions::gpu_memory_utilization))
      .def("set_dtype", option(&EngineOptions::dtype))
      .def("set_kv_cache_dtype", option(&EngineOptions::kv_cache_dtype))
      .def("set_kv_cache_dtype_skip_layers", option(&EngineOptions::kv_cache_dtype_skip_layers))
      .def("set_calculate_kv_scales", option(&EngineOptions::calculate_kv_scales))
      .def("set_max_model_len", option(&EngineOptions::max_model_len), nb::arg("value").none())
      .def("set_max_num_seqs", option(&EngineOptions::max_num_seqs))
      .def("set_max_num_batched_tokens", option(&EngineOptions::max_num_batched_tokens))
      .def("set_block_size", option(&EngineOptions::block_size))
      .def("set_kv_cache_memory_bytes", option(&EngineOptions::kv_cache_memory_bytes), nb::arg("value").none())
      .def("set_enable_prefix_caching", option(&EngineOptions::enable_prefix_caching))
      .def("set_enable_chunked_prefill", option(&EngineOptions::enable_chunked_prefill))
      .def("set_async_scheduling", option(&EngineOptions::async_scheduling))
      .def("set_tensor_parallel_size", option(&EngineOptions::tensor_parallel_size))
      .def("set_enable_expert_parallel", option(&EngineOptions::enable_expert_parallel))
      .def("set_num_threads", option(&EngineOptions::num_threads))
      .def("set_seed", option(&EngineOptions::seed))
      .def("set_dummy_weights", option(&EngineOptions::dummy_weights))
      .def("set_priority_scheduling",
           [](LlmOptions& o, bool on) {
             o.engine.scheduling_policy =
                 on ? EngineOptions::SchedulingPolicy::kPriority : EngineOptions::SchedulingPolicy::kFcfs;
           })
      .def("set_quantization", [](LlmOptions& o, std::string name) { o.engine.quant.quantization = std::move(name); })
      .def("set_quantization_ignore",
           [](LlmOptions& o, std::vector<std::string> names) { o.engine.quant.ignore = std::move(names); })
      .def("set_quantize_lm_head", [](LlmOptions& o, bool on) { o.engine.quant.quantize_lm_head = on; });
}

Json report_json(const EngineReport& r) {
  return {{"architecture", r.architecture},
          {"dtype", r.dtype},
          {"quantization", r.quantization},
          {"kv_cache_dtype", r.kv_cache_dtype},
          {"kv_scales", r.kv_scales},
          {"device", r.device},
          {"num_parameters", r.num_parameters},
          {"weight_bytes", r.weight_bytes},
          {"scale_bytes", r.scale_bytes},
          {"kv_bytes_per_token", r.kv_bytes_per_token},
          {"kv_cache_bytes", r.kv_cache_bytes},
          {"activation_bytes", r.activation_bytes},
          {"workspace_bytes", r.workspace_bytes},
          {"num_graphs", r.num_graphs},
          {"largest_graph", r.largest_graph},
          {"kv_cache_tokens", r.kv_cache_tokens},
          {"max_model_len", r.max_model_len},
          {"load_seconds", r.load_seconds},
          {"start_seconds", r.start_seconds}};
}

void bind_llm(nb::module_& m) {
  const auto chat_options = [](const std::string& tools, bool add_generation_prompt, const std::string& kwargs) {
    ChatOptions options{.tools = json_argument(tools, "tools"), .add_generation_prompt = add_generation_prompt};
    if (!kwargs.empty()) options.template_kwargs = parse_json(kwargs, "chat_template_kwargs");
    return options;
  };
  nb::class_<Llm>(m, "Llm")
      .def(nb::new_(&make_llm), nb::arg("options"))
      .def(
          "generate",
          [](Llm& llm, std::vector<PromptValue> values, const std::vector<SamplingParams>& params,
             const std::optional<std::function<void(size_t)>>& on_progress, const std::vector<int32_t>& priorities) {
            std::vector<Prompt> prompts;
            for (PromptValue& value : values) prompts.push_back(to_prompt(std::move(value)));
            return generate(llm, std::move(prompts), params, on_progress, priorities);
          },
          nb::arg("prompts"), nb::arg("params"), nb::arg("on_progress").none(), nb::arg("priorities"))
      .def("embed", &embed, nb::arg("prompts"), nb::arg("on_progress").none(), nb::arg("dimensions"),
           nb::arg("normalize").none())
      .def("chat_prompt",
           [chat_options](const Llm& llm, const std::string& messages, const std::string& tools,
                          bool add_generation_prompt, const std::string& kwargs) {
             Prompt prompt =
                 llm.chat_prompt(parse_json(messages, "messages"), chat_options(tools, add_generation_prompt, kwargs));
             return std::pair(*prompt.text, prompt.token_ids);
           })
      .def("default_sampling_params", &Llm::default_sampling_params)
      .def("eos_token_ids", [](const Llm& llm) { return llm.eos_token_ids(); })
      .def("has_tokenizer", [](const Llm& llm) { return llm.tokenizer() != nullptr; })
      .def("encode",
           [](const Llm& llm, const std::string& text, bool add_special_tokens) {
             return llm.tokenizer()->encode(text, add_special_tokens ? AddSpecialTokens::kYes : AddSpecialTokens::kNo);
           })
      .def("decode",
           [](const Llm& llm, const std::vector<int32_t>& ids, bool skip_special_tokens) {
             return llm.tokenizer()->decode(ids, skip_special_tokens ? SpecialTokens::kSkip : SpecialTokens::kKeep);
           })
      .def("vocab_size", [](const Llm& llm) { return llm.tokenizer()->vocab_size(); })
      .def("token_to_id", [](const Llm& llm, const std::string& token) { return llm.tokenizer()->token_to_id(token); })
      .def("model_folder", [](const Llm& llm) { return llm.model_folder(); })
      .def("report", [](Llm& llm) { return report_json(llm.engine().report()).dump(); })
      .def("reset_prefix_cache", [](Llm& llm) { llm.engine().reset_prefix_cache(); });
}

}  // namespace
}  // namespace octet

NB_MODULE(_octet, m) {
  m.doc() = "octet's engine; use the classes of the package octet instead.";
  m.attr("__version__") = octet::build::kVersion;
  octet::bind_errors(m);
  octet::bind_sampling(m);
  octet::bind_outputs(m);
  octet::bind_options(m);
  octet::bind_llm(m);
  octet::bind_async(m);
  octet::bind_quantize(m);
  m.def("set_quiet",
        [](bool quiet) { octet::set_log_level(quiet ? octet::LogLevel::kWarning : octet::LogLevel::kInfo); });
}
