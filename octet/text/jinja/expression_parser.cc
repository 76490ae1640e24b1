#include "octet/text/jinja/expression_parser.h"

#include <algorithm>

#include "octet/text/jinja/builtins.h"
#include "octet/text/jinja/expression_depth.h"

namespace octet::jinja {
namespace {

constexpr int kMaxDepth = 250;  // of one expression's tree, and of recursion while parsing

struct BinaryRow {
  std::string_view op;
  BinaryOp meaning;
};
constexpr BinaryRow kSums[] = {{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSubtract}};
constexpr BinaryRow kProducts[] = {
    {"*", BinaryOp::kMultiply}, {"/", BinaryOp::kDivide}, {"//", BinaryOp::kFloorDivide}, {"%", BinaryOp::kModulo}};
constexpr std::pair<std::string_view, CompareOp> kComparisons[] = {
    {"==", CompareOp::kEqual},     {"!=", CompareOp::kNotEqual}, {"<", CompareOp::kLess},
    {"<=", CompareOp::kLessEqual}, {">", CompareOp::kGreater},   {">=", CompareOp::kGreaterEqual}};

template <size_t N>
const BinaryRow* find_row(const BinaryRow (&rows)[N], const TokenStream& stream) {
  const auto* row =
      std::find_if(std::begin(rows), std::end(rows), [&](const BinaryRow& r) { return stream.is_op(r.op); });
  return row == std::end(rows) ? nullptr : row;
}

}  // namespace

bool TokenStream::skip_name(std::string_view name) {
  const bool found = is_name(name);
  if (found) next();
  return found;
}

bool TokenStream::skip_op(std::string_view op) {
  const bool found = is_op(op);
  if (found) next();
  return found;
}

void TokenStream::expect(TokenKind kind, std::string_view what) {
  if (!is(kind)) unexpected(what);
  next();
}

void TokenStream::expect_op(std::string_view op) {
  if (!skip_op(op)) unexpected(fmt::format("'{}'", op));
}

std::string TokenStream::expect_name() {
  if (!is(TokenKind::kName)) unexpected("a name");
  return next().text;
}

void TokenStream::unexpected(std::string_view wanted) const {
  std::string found = fmt::format("'{}'", current().text);
  if (is(TokenKind::kEnd)) found = "the end of the template";
  if (is(TokenKind::kBlockEnd)) found = "the end of the block tag";
  if (is(TokenKind::kVariableEnd)) found = "the end of the expression";
  throw SyntaxError(line(), fmt::format("expected {}, found {}", wanted, found));
}

class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.nesting_ > kMaxDepth) throw SyntaxError(parser.stream_.line(), "expression nested too deeply");
  }
  ~Nesting() { --parser_.nesting_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  ExpressionParser& parser_;
};

ExpressionPtr ExpressionParser::make(int line, Expression::Node node) {
  const int depth = 1 + depth_below(node);
  if (depth > kMaxDepth) throw SyntaxError(line, "expression nested too deeply");
  auto expression = std::make_unique<Expression>();
  expression->node = std::move(node);
  expression->line = line;
  expression->depth = depth;
  return expression;
}

ExpressionPtr ExpressionParser::parse_expression(Conditionals conditionals) {
  const Nesting nesting(*this);
  return conditionals == Conditionals::kAllowed ? parse_conditional() : parse_or();
}

// What stands before an "if" turns out to be conditional only when the "if" is read, so an unknown name in it waits.
ExpressionPtr ExpressionParser::parse_conditional() {
  const Nesting nesting(*this);
  const int line = stream_.line();
  const bool outer = unknown_names_are_errors_;
  std::optional<SyntaxError> outer_unknown = std::exchange(unknown_name_, std::nullopt);
  ++conditionals_;
  ExpressionPtr value = parse_or();
  while (stream_.skip_name("if")) {
    unknown_name_.reset();
    unknown_names_are_errors_ = false;
    ExpressionPtr test = parse_or();
    ExpressionPtr otherwise = stream_.skip_name("else") ? parse_conditional() : nullptr;
    unknown_names_are_errors_ = outer;
    value = make(line, Conditional{std::move(test), std::move(value), std::move(otherwise)});
  }
  --conditionals_;
  if (outer_unknown) unknown_name_ = std::move(outer_unknown);
  if (conditionals_ == 0 && unknown_name_) throw *unknown_name_;
  return value;
}

void ExpressionParser::unknown_name(int line, const std::string& text) {
  if (!unknown_names_are_errors_) return;
  if (conditionals_ == 0) throw SyntaxError(line, text);
  unknown_name_ = SyntaxError(line, text);
}

ExpressionPtr ExpressionParser::parse_or() {
  const int line = stream_.line();
  ExpressionPtr left = parse_and();
  while (stream_.skip_name("or")) left = make(line, Binary{BinaryOp::kOr, std::move(left), parse_and()});
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  const int line = stream_.line();
  ExpressionPtr left = parse_not();
  while (stream_.skip_name("and")) left = make(line, Binary{BinaryOp::kAnd, std::move(left), parse_not()});
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const Nesting nesting(*this);
  const int line = stream_.line();
  if (stream_.skip_name("not")) return make(line, Unary{UnaryOp::kNot, parse_not()});
  return parse_compare();
}

ExpressionPtr ExpressionParser::parse_compare() {
  const int line = stream_.line();
  ExpressionPtr first = parse_sum();
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;
  while (true) {
    const auto* row = std::find_if(std::begin(kComparisons), std::end(kComparisons),
                                   [&](const auto& candidate) { return stream_.is_op(candidate.first); });
    if (row != std::end(kComparisons)) {
      stream_.next();
      rest.emplace_back(row->second, parse_sum());
    } else if (stream_.skip_name("in")) {
      rest.emplace_back(CompareOp::kIn, parse_sum());
    } else if (stream_.is_name("not") && stream_.look().kind == TokenKind::kName && stream_.look().text == "in") {
      stream_.next();
      stream_.next();
      rest.emplace_back(CompareOp::kNotIn, parse_sum());
    } else {
      break;
    }
  }
  return rest.empty() ? std::move(first) : make(line, Compare{std::move(first), std::move(rest)});
}

ExpressionPtr ExpressionParser::parse_sum() {
  const int line = stream_.line();
  ExpressionPtr left = parse_concat();
  while (const BinaryRow* row = find_row(kSums, stream_)) {
    stream_.next();
    left = make(line, Binary{row->meaning, std::move(left), parse_concat()});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concat() {
  const int line = stream_.line();
  std::vector<ExpressionPtr> parts;
  parts.push_back(parse_product());
  while (stream_.skip_op("~")) parts.push_back(parse_product());
  return parts.size() == 1 ? std::move(parts[0]) : make(line, Concat{std::move(parts)});
}

ExpressionPtr ExpressionParser::parse_product() {
  const int line = stream_.line();
  ExpressionPtr left = parse_power();
  while (const BinaryRow* row = find_row(kProducts, stream_)) {
    stream_.next();
    left = make(line, Binary{row->meaning, std::move(left), parse_power()});
  }
  return left;
}

// Left-associative, unlike Python's own.
ExpressionPtr ExpressionParser::parse_power() {
  const int line = stream_.line();
  ExpressionPtr left = parse_unary(Filters::kAllowed);
  while (stream_.skip_op("**"))
    left = make(line, Binary{BinaryOp::kPower, std::move(left), parse_unary(Filters::kAllowed)});
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(Filters filters) {
  const Nesting nesting(*this);
  const int line = stream_.line();
  ExpressionPtr node;
  if (stream_.skip_op("-")) {
    node = make(line, Unary{UnaryOp::kNegative, parse_unary(Filters::kNot)});
  } else if (stream_.skip_op("+")) {
    node = make(line, Unary{UnaryOp::kPositive, parse_unary(Filters::kNot)});
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return filters == Filters::kAllowed ? parse_postfix_filters(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const int line = stream_.line();
  switch (stream_.current().kind) {
    case TokenKind::kName:
      return parse_named();
    case TokenKind::kInteger:
      return make(line, Literal{stream_.next().integer});
    case TokenKind::kFloat:
      return make(line, Literal{stream_.next().floating});
    case TokenKind::kString: {
      std::string text;  // "a" "b" is "ab"
      while (stream_.is(TokenKind::kString)) text += stream_.next().text;
      return make(line, Literal{trusted(text)});
    }
    default:
      break;
  }
  if (stream_.skip_op("(")) {
    ExpressionPtr inner = parse_tuple(Conditionals::kAllowed, TupleForm::kParenthesised);
    stream_.expect_op(")");
    return inner;
  }
  if (stream_.is_op("[")) return parse_list();
  if (stream_.is_op("{")) return parse_dict();
  stream_.unexpected("an expression");
}

ExpressionPtr ExpressionParser::parse_named() {
  const int line = stream_.line();
  std::string name = stream_.next().text;
  if (name == "true" || name == "True") return make(line, Literal{true});
  if (name == "false" || name == "False") return make(line, Literal{false});
  if (name == "none" || name == "None") return make(line, Literal{None{}});
  mentions_.caller += name == "caller";
  mentions_.kwargs += name == "kwargs";
  mentions_.varargs += name == "varargs";
  return make(line, Name{std::move(name)});
}

ExpressionPtr ExpressionParser::parse_list() {
  const int line = stream_.line();
  stream_.expect_op("[");
  std::vector<ExpressionPtr> items;
  while (!stream_.is_op("]")) {
    if (!items.empty()) stream_.expect_op(",");
    if (stream_.is_op("]")) break;
    items.push_back(parse_expression());
  }
  stream_.expect_op("]");
  return make(line, MakeSequence{SequenceType::kList, std::move(items)});
}

ExpressionPtr ExpressionParser::parse_dict() {
  const int line = stream_.line();
  stream_.expect_op("{");
  MakeDict dict;
  while (!stream_.is_op("}")) {
    if (!dict.items.empty()) stream_.expect_op(",");
    if (stream_.is_op("}")) break;
    ExpressionPtr key = parse_expression();
    stream_.expect_op(":");
    dict.items.emplace_back(std::move(key), parse_expression());
  }
  stream_.expect_op("}");
  return make(line, std::move(dict));
}

ExpressionPtr ExpressionParser::parse_tuple(Conditionals conditionals, TupleForm form) {
  const Nesting nesting(*this);
  const int line = stream_.line();
  const auto at_end = [&] {
    return stream_.is(TokenKind::kVariableEnd) || stream_.is(TokenKind::kBlockEnd) || stream_.is_op(")");
  };
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) stream_.expect_op(",");
    if (at_end()) break;
    items.push_back(parse_expression(conditionals));
    if (!stream_.is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && form == TupleForm::kBare) stream_.unexpected("an expression");
  return make(line, MakeSequence{SequenceType::kTuple, std::move(items)});
}

ExpressionPtr ExpressionParser::parse_simple_target(NamespaceTargets namespaces) {
  const Nesting nesting(*this);
  const int line = stream_.line();
  if (stream_.skip_op("(")) {
    ExpressionPtr inner = parse_target(NamespaceTargets::kNot);
    stream_.expect_op(")");
    return inner;
  }
  std::string name = stream_.expect_name();
  if (namespaces == NamespaceTargets::kAllowed && stream_.skip_op(".")) {
    return make(line, NamespaceTarget{std::move(name), stream_.expect_name()});
  }
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) throw SyntaxError(line, fmt::format("can't assign to '{}'", name));
  }
  return make(line, Name{std::move(name)});
}

ExpressionPtr ExpressionParser::parse_target(NamespaceTargets namespaces) {
  const int line = stream_.line();
  std::vector<ExpressionPtr> items;
  items.push_back(parse_simple_target(namespaces));
  bool is_tuple = false;
  while (stream_.skip_op(",")) {
    is_tuple = true;
    if (stream_.is(TokenKind::kBlockEnd) || stream_.is_op(")")) break;
    items.push_back(parse_simple_target(namespaces));
  }
  return is_tuple ? make(line, MakeSequence{SequenceType::kTuple, std::move(items)}) : std::move(items[0]);
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  while (true) {
    const int line = stream_.line();
    if (stream_.is_op(".") || stream_.is_op("[")) {
      node = parse_subscript(std::move(node));
    } else if (stream_.is_op("(")) {
      node = make(line, Call{std::move(node), parse_arguments()});
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_postfix_filters(ExpressionPtr node) {
  while (true) {
    const int line = stream_.line();
    if (stream_.is_op("|")) {
      node = parse_filters(std::move(node));
    } else if (stream_.is_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.is_op("(")) {
      node = make(line, Call{std::move(node), parse_arguments()});
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr node) {
  const int line = stream_.line();
  if (stream_.skip_op(".")) {
    if (stream_.is(TokenKind::kInteger)) {
      const Integer index = stream_.next().integer;
      return make(line, GetItem{std::move(node), make(line, Literal{index})});
    }
    return make(line, GetAttribute{std::move(node), stream_.expect_name()});
  }
  stream_.expect_op("[");
  std::vector<ExpressionPtr> parts;
  while (!stream_.is_op("]")) {
    if (!parts.empty()) stream_.expect_op(",");
    parts.push_back(parse_index());
  }
  stream_.expect_op("]");
  ExpressionPtr index =
      parts.size() == 1 ? std::move(parts[0]) : make(line, MakeSequence{SequenceType::kTuple, std::move(parts)});
  return make(line, GetItem{std::move(node), std::move(index)});
}

ExpressionPtr ExpressionParser::parse_index() {
  const int line = stream_.line();
  MakeSlice slice;
  if (!stream_.is_op(":")) {
    slice.begin = parse_expression();
    if (!stream_.is_op(":")) return std::move(slice.begin);
  }
  stream_.expect_op(":");
  const auto at_end = [&] { return stream_.is_op("]") || stream_.is_op(",") || stream_.is_op(":"); };
  if (!at_end()) slice.end = parse_expression();
  if (stream_.skip_op(":") && !stream_.is_op("]") && !stream_.is_op(",")) slice.step = parse_expression();
  return make(line, std::move(slice));
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = stream_.expect_name();
  while (stream_.skip_op(".")) name += "." + stream_.expect_name();
  return name;
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr subject, bool first_without_bar) {
  while (first_without_bar || stream_.skip_op("|")) {
    first_without_bar = false;
    const int line = stream_.line();
    std::string name = parse_dotted_name();
    if (!find_filter(name)) unknown_name(line, fmt::format("no filter named '{}'", name));
    CallArguments arguments = stream_.is_op("(") ? parse_arguments() : CallArguments();
    subject = make(line, ApplyFilter{std::move(subject), std::move(name), std::move(arguments)});
  }
  return subject;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr node) {
  const int line = stream_.line();
  stream_.next();  // is
  const bool negated = stream_.skip_name("not");
  std::string name = parse_dotted_name();
  if (!find_test(name)) unknown_name(line, fmt::format("no test named '{}'", name));
  const bool value_follows = stream_.is(TokenKind::kName) || stream_.is(TokenKind::kString) ||
                             stream_.is(TokenKind::kInteger) || stream_.is(TokenKind::kFloat) || stream_.is_op("[") ||
                             stream_.is_op("{");
  CallArguments arguments;
  if (stream_.is_op("(")) {
    arguments = parse_arguments();
  } else if (value_follows && !stream_.is_name("else") && !stream_.is_name("or") && !stream_.is_name("and")) {
    if (stream_.is_name("is")) throw SyntaxError(line, "tests cannot be chained with 'is'");
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr test = make(line, ApplyTest{std::move(node), std::move(name), std::move(arguments)});
  return negated ? make(line, Unary{UnaryOp::kNot, std::move(test)}) : std::move(test);
}

CallArguments ExpressionParser::parse_arguments() {
  stream_.expect_op("(");
  CallArguments arguments;
  bool first = true;
  while (!stream_.is_op(")")) {
    if (!first) stream_.expect_op(",");
    if (stream_.is_op(")")) break;  // a trailing comma
    parse_argument(arguments);
    first = false;
  }
  stream_.expect_op(")");
  return arguments;
}

void ExpressionParser::parse_argument(CallArguments& arguments) {
  const auto ensure = [&](bool allowed) {
    if (!allowed) throw SyntaxError(stream_.line(), "invalid syntax in the arguments of a call");
  };
  const bool is_named =
      stream_.is(TokenKind::kName) && stream_.look().kind == TokenKind::kOperator && stream_.look().text == "=";
  ensure(!arguments.unpacked_dict);
  if (stream_.skip_op("*")) {
    ensure(!arguments.unpacked_list);
    arguments.unpacked_list = parse_expression();
  } else if (stream_.skip_op("**")) {
    arguments.unpacked_dict = parse_expression();
  } else if (is_named) {
    std::string name = stream_.expect_name();
    stream_.expect_op("=");
    for (const auto& [other, value] : arguments.named) {
      if (other == name) throw SyntaxError(stream_.line(), fmt::format("argument '{}' is given twice", name));
    }
    arguments.named.emplace_back(std::move(name), parse_expression());
  } else {
    ensure(!arguments.unpacked_list && arguments.named.empty());
    arguments.positional.push_back(parse_expression());
  }
}

}  // namespace octet::jinja
