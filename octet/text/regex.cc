#include "octet/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "octet/base/error.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kMaxTranslated = size_t{4} << 20;
constexpr size_t kJitStackBytes = size_t{1} << 20;

struct Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Deleter>;

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// What one call of find_all needs besides the code.
struct Scratch {
  Owned<pcre2_match_context> limits{pcre2_match_context_create(nullptr)};
  Owned<pcre2_match_data> match;
  Owned<pcre2_jit_stack> stack;

  explicit Scratch(const pcre2_code* code) : match(pcre2_match_data_create_from_pattern(code, nullptr)) {
    if (!limits || !match) fail(ErrorCode::kMemory, "regular expression: out of memory");
    pcre2_set_match_limit(limits.get(), kMatchLimit);
    pcre2_set_depth_limit(limits.get(), kDepthLimit);
    pcre2_set_heap_limit(limits.get(), kHeapLimitKib);
  }

  // PCRE2's JIT starts with 32 KB of the machine's stack; a text that needs more gets a stack of its own.
  bool grow_stack() {
    if (stack) return false;
    stack.reset(pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr));
    if (!stack) return false;
    pcre2_jit_stack_assign(limits.get(), nullptr, stack.get());
    return true;
  }
};

}  // namespace

struct Regex::Compiled {
  Owned<pcre2_code> code;
};

Regex::Regex(std::string_view pattern, std::string_view where) {
  const std::string translated = translate_pattern(pattern, where);
  if (translated.size() > kMaxTranslated) fail(ErrorCode::kModel, "{}: regular expression too long", where);
  Owned<pcre2_compile_context> compile(pcre2_compile_context_create(nullptr));
  if (!compile) fail(ErrorCode::kMemory, "regular expression: out of memory");
  pcre2_set_newline(compile.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  Owned<pcre2_code> compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                           PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                                           &offset, compile.get()));
  if (!compiled) fail(ErrorCode::kModel, "{}: regular expression \"{}\": {}", where, pattern, message_of(code));
  pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);  // without JIT (a hardened kernel) the interpreter runs
  compiled_ = std::make_unique<Compiled>(Compiled{.code = std::move(compiled)});
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::vector<TextRange> Regex::find_all(std::string_view text) const {
  std::vector<TextRange> found;
  Scratch scratch(compiled_->code.get());
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t position = 0;
  bool matched_before = false;
  size_t last_end = 0;
  while (position <= text.size()) {
    const int count = pcre2_match(compiled_->code.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK,
                                  scratch.match.get(), scratch.limits.get());
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count == PCRE2_ERROR_JIT_STACKLIMIT && scratch.grow_stack()) continue;
    if (count < 0)
      fail(ErrorCode::kInvalid, "splitting {} bytes of text into words: {}", text.size(), message_of(count));
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.match.get());
    const TextRange match{.begin = range[0], .end = range[1]};
    if (match.end < match.begin) fail(ErrorCode::kInvalid, "splitting text into words: \\K in a lookahead");
    const bool empty = match.begin == match.end;
    // An empty match right behind the previous match does not count (as in Rust's regex and HF's use of Oniguruma).
    if (!(empty && matched_before && match.begin == last_end)) found.push_back(match);
    matched_before = true;
    last_end = match.end;
    position = match.end;
    if (empty) position += position < text.size() ? utf8::decode_at(text, position).length : 1;
  }
  return found;
}

}  // namespace octet
