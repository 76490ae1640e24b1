#include "octet/quant/module_regex.h"

#include <functional>
#include <optional>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr size_t kMaxLength = 4096;      // of an expression
constexpr size_t kMaxProgram = 1 << 14;  // instructions, after {m,n} has been written out
constexpr int kMaxDepth = 64;            // of parentheses
constexpr int kMaxRepeats = 1000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

template <class Predicate>
std::bitset<256> characters_where(Predicate&& predicate) {
  std::bitset<256> set;
  for (int c = 0; c < 256; ++c) set[static_cast<size_t>(c)] = predicate(static_cast<char>(c));
  return set;
}

}  // namespace

// Recursive descent. Every piece is built backwards: it is given where to go on, and gives where it begins. So that
// {m,n} can be written out, a piece is kept as a function of where to go on.
class RegexParser {
 public:
  RegexParser(std::string_view text, ModuleRegex& regex) : text_(text), regex_(regex) {}

  void parse() {
    if (text_.size() > kMaxLength) unknown("more than 4096 characters");
    const Piece whole = alternatives(0);
    if (at_ < text_.size()) unknown("an unmatched )");
    regex_.first_ = whole(add({.step = ModuleRegex::Step::kDone}));
  }

 private:
  using Piece = std::function<int32_t(int32_t next)>;
  using Characters = ModuleRegex::Characters;

  [[noreturn]] void unknown(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "regular expression \"{}\": {} is not supported", text_.substr(0, 200), what);
  }
  bool more() const { return at_ < text_.size(); }
  bool take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  int32_t add(ModuleRegex::Instruction instruction) {
    if (regex_.program_.size() >= kMaxProgram) unknown("so many repetitions");
    regex_.program_.push_back(instruction);
    return static_cast<int32_t>(regex_.program_.size()) - 1;
  }
  Piece one_of(const Characters& characters) {
    const auto index = static_cast<int32_t>(regex_.characters_.size());
    regex_.characters_.push_back(characters);
    return [this, index](int32_t next) {
      return add({.step = ModuleRegex::Step::kCharacter, .next = next, .characters = index});
    };
  }
  Piece border(ModuleRegex::Step step) {
    return [this, step](int32_t next) { return add({.step = step, .next = next}); };
  }

  Piece alternatives(int depth) {
    if (depth > kMaxDepth) unknown("so deep a nesting");
    Piece left = sequence(depth);
    while (take("|")) {
      left = [this, left, right = sequence(depth)](int32_t next) {
        const int32_t first = left(next), second = right(next);
        return add({.step = ModuleRegex::Step::kFork, .next = first, .other = second});
      };
    }
    return left;
  }

  Piece sequence(int depth) {
    std::vector<Piece> pieces;
    while (more() && text_[at_] != '|' && text_[at_] != ')') pieces.push_back(repeated(atom(depth)));
    return [pieces](int32_t next) {
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) next = (*piece)(next);
      return next;
    };
  }

  Piece atom(int depth) {
    const char c = text_[at_++];
    switch (c) {
      case '.':
        return one_of(characters_where([](char other) { return other != '\n'; }));
      case '^':
        return border(ModuleRegex::Step::kStart);
      case '$':
        return border(ModuleRegex::Step::kEnd);
      case '[':
        return one_of(bracket());
      case '\\':
        if (take("b")) return border(ModuleRegex::Step::kWordBorder);
        return one_of(escaped());
      case '(':
        return group(depth);
      case '*':
      case '+':
      case '?':
      case '{':
        unknown(fmt::format("'{}' with nothing to repeat", c));
      default:
        return one_of(characters_where([c](char other) { return other == c; }));
    }
  }

  Piece group(int depth) {
    if (!take("?:") && more() && text_[at_] == '?') unknown(fmt::format("({}", text_.substr(at_, 2)));
    Piece inside = alternatives(depth + 1);
    if (!take(")")) unknown("a ( without )");
    return inside;
  }

  // After a backslash.
  Characters escaped() {
    if (!more()) unknown("a backslash at the end");
    const char c = text_[at_++];
    const auto negated = [](const Characters& characters) { return ~characters; };
    if (c == 'd') return characters_where(is_digit);
    if (c == 'D') return negated(characters_where(is_digit));
    if (c == 'w') return characters_where(is_word);
    if (c == 'W') return negated(characters_where(is_word));
    if (c == 's') return characters_where(is_space);
    if (c == 'S') return negated(characters_where(is_space));
    if (is_word(c)) unknown(fmt::format("\\{}", c));
    return characters_where([c](char other) { return other == c; });
  }

  // After an opening bracket.
  Characters bracket() {
    const bool negated = take("^");
    Characters set;
    for (bool first = true;; first = false) {
      if (!more()) unknown("a [ without ]");
      if (!first && take("]")) break;
      const char from = text_[at_++];
      if (from == '\\') {
        set |= escaped();
      } else if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        const char to = text_[at_ + 1];
        if (to == '\\') unknown("a range to an escape");
        at_ += 2;
        const auto low = static_cast<unsigned char>(from), high = static_cast<unsigned char>(to);
        for (unsigned c = low; c <= high; ++c) set.set(c);
      } else {
        set.set(static_cast<unsigned char>(from));
      }
    }
    return negated ? ~set : set;
  }

  int number() {
    int value = 0;
    while (more() && is_digit(text_[at_])) {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMaxRepeats) unknown("so many repetitions");
    }
    return value;
  }

  struct Repeats {
    int least = 1;
    std::optional<int> most;  // none: any number
  };
  std::optional<Repeats> repeats() {
    if (take("*")) return Repeats{.least = 0, .most = {}};
    if (take("+")) return Repeats{.least = 1, .most = {}};
    if (take("?")) return Repeats{.least = 0, .most = 1};
    if (!take("{")) return std::nullopt;
    Repeats found;
    const size_t begin = at_;
    found.least = number();
    const bool has_least = at_ > begin;
    if (take(",")) {
      const size_t second = at_;
      const int most = number();
      if (at_ > second) found.most = most;
    } else {
      found.most = found.least;
      if (!has_least) unknown("{ that is no repetition");
    }
    if (!take("}") || (found.most && *found.most < found.least)) unknown("{ that is no repetition");
    return found;
  }

  Piece repeated(Piece piece) {
    const std::optional<Repeats> wanted = repeats();
    if (!wanted) return piece;
    take("?");  // lazy: matches the same texts
    if (more() && std::string_view("*+?{").find(text_[at_]) != std::string_view::npos)
      unknown("repeating a repetition");
    return [this, piece = std::move(piece), wanted = *wanted](int32_t next) {
      if (wanted.most) {
        const int32_t after = next;
        for (int i = wanted.least; i < *wanted.most; ++i)
          next = add({.step = ModuleRegex::Step::kFork, .next = piece(next), .other = after});
      } else {
        const int32_t loop = add({.step = ModuleRegex::Step::kFork, .other = next});
        const int32_t first = piece(loop);
        regex_.program_[static_cast<size_t>(loop)].next = first;
        next = loop;
      }
      for (int i = 0; i < wanted.least; ++i) next = piece(next);
      return next;
    };
  }

  std::string_view text_;
  ModuleRegex& regex_;
  size_t at_ = 0;
};

ModuleRegex::ModuleRegex(std::string_view expression) { RegexParser(expression, *this).parse(); }

// All places of the program that the text read so far can have led to, at once.
bool ModuleRegex::run(std::string_view text, bool anywhere) const {
  std::vector<int32_t> now, next, waiting;
  std::vector<size_t> reached(program_.size(), static_cast<size_t>(-1));  // at which character a place was noted last
  bool done = false;
  const auto word_at = [&](size_t i) { return i < text.size() && is_word(text[i]); };
  const auto follow = [&](int32_t place, size_t at, std::vector<int32_t>& places) {
    waiting.assign(1, place);
    while (!waiting.empty()) {
      const int32_t index = waiting.back();
      waiting.pop_back();
      if (reached[static_cast<size_t>(index)] == at) continue;
      reached[static_cast<size_t>(index)] = at;
      const Instruction& instruction = program_[static_cast<size_t>(index)];
      const bool at_word_border = (at > 0 && word_at(at - 1)) != word_at(at);
      if (instruction.step == Step::kCharacter) places.push_back(index);
      if (instruction.step == Step::kDone) done = true;
      if (instruction.step == Step::kFork) waiting.push_back(instruction.other);
      if (instruction.step == Step::kFork || (instruction.step == Step::kStart && at == 0) ||
          (instruction.step == Step::kEnd && at == text.size()) ||
          (instruction.step == Step::kWordBorder && at_word_border))
        waiting.push_back(instruction.next);
    }
  };
  for (size_t at = 0; at <= text.size() && !done; ++at) {
    if (at == 0 || anywhere) follow(first_, at, now);
    if (done || at == text.size()) break;
    next.clear();
    for (const int32_t index : now) {
      const Instruction& instruction = program_[static_cast<size_t>(index)];
      if (characters_[static_cast<size_t>(instruction.characters)][static_cast<unsigned char>(text[at])])
        follow(instruction.next, at + 1, next);
    }
    std::swap(now, next);
  }
  return done;
}

}  // namespace octet
