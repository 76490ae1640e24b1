#include "octet/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "octet/text/jinja/expression_parser.h"

namespace octet::jinja {
namespace {

constexpr int kMaxNesting = 100;  // of blocks in blocks

using NamespaceTargets = ExpressionParser::NamespaceTargets;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : stream_(std::move(tokens)), expressions_(stream_) {}

  Block run() {
    Block block = parse_body({});
    if (!stream_.is(TokenKind::kEnd)) stream_.unexpected("the end of the template");
    return block;
  }

 private:
  using Row = std::pair<std::string_view, Statement::Node (Parser::*)()>;

  // Inside a conditional branch names of filters and tests are looked up only when they run; see ExpressionParser.
  template <class Parse>
  auto with_unknown_names_as_errors(bool errors, Parse parse) {
    const bool outer = expressions_.unknown_names_are_errors();
    expressions_.set_unknown_names_are_errors(errors);
    auto result = parse();
    expressions_.set_unknown_names_are_errors(outer);
    return result;
  }

  // Statements up to a tag that starts with one of `ends`, which stays current (just behind its "{%").
  Block parse_body(std::initializer_list<std::string_view> ends) {
    if (++nesting_ > kMaxNesting) throw SyntaxError(stream_.line(), "blocks nested too deeply");
    Block block;
    while (!stream_.is(TokenKind::kEnd)) {
      const int line = stream_.line();
      if (stream_.is(TokenKind::kBlockBegin)) {
        stream_.next();
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return stream_.is_name(end); })) break;
        block.push_back(Statement{parse_statement(), line});
        stream_.expect(TokenKind::kBlockEnd, "the end of the block tag");
      } else {
        block.push_back(Statement{parse_output(), line});
      }
    }
    if (ends.size() > 0 && stream_.is(TokenKind::kEnd)) stream_.unexpected(fmt::format("'{}'", *(ends.end() - 1)));
    --nesting_;
    return block;
  }

  // A body that starts behind the end of the current tag.
  Block parse_block(std::initializer_list<std::string_view> ends) {
    stream_.skip_op(":");
    stream_.expect(TokenKind::kBlockEnd, "the end of the block tag");
    return parse_body(ends);
  }

  Block parse_inner_block(std::string_view end) {
    return with_unknown_names_as_errors(true, [&] {
      Block block = parse_block({end});
      stream_.next();
      return block;
    });
  }

  Statement::Node parse_output() {
    Output output;
    while (stream_.is(TokenKind::kText) || stream_.is(TokenKind::kVariableBegin)) {
      const Token& token = stream_.next();
      if (token.kind == TokenKind::kText) {
        auto literal = std::make_unique<Expression>();
        literal->node = Literal{trusted(token.text)};
        literal->line = token.line;
        output.parts.push_back(std::move(literal));
      } else {
        output.parts.push_back(expressions_.parse_tuple());
        stream_.expect(TokenKind::kVariableEnd, "the end of the expression");
      }
    }
    return output;
  }

  Statement::Node parse_statement() {
    static constexpr Row kRows[] = {{"for", &Parser::parse_for},     {"if", &Parser::parse_if},
                                    {"set", &Parser::parse_set},     {"macro", &Parser::parse_macro},
                                    {"call", &Parser::parse_call},   {"filter", &Parser::parse_filter},
                                    {"with", &Parser::parse_with},   {"block", &Parser::parse_named_block},
                                    {"print", &Parser::parse_print}, {"generation", &Parser::parse_generation},
                                    {"break", &Parser::parse_break}, {"continue", &Parser::parse_continue}};
    const int line = stream_.line();
    if (!stream_.is(TokenKind::kName)) stream_.unexpected("a tag's name");
    const std::string name = stream_.next().text;
    const Row* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.first == name; });
    if (row == std::end(kRows)) throw SyntaxError(line, fmt::format("unknown or unsupported tag '{}'", name));
    return (this->*row->second)();
  }

  Statement::Node parse_for() {
    For loop;
    loop.target = expressions_.parse_target(NamespaceTargets::kNot);
    if (!stream_.skip_name("in")) stream_.unexpected("'in'");
    loop.iterable = expressions_.parse_tuple(Conditionals::kNot);
    with_unknown_names_as_errors(true, [&] {
      if (stream_.skip_name("if")) loop.filter = expressions_.parse_expression();
      loop.recursion = stream_.skip_name("recursive") ? Recursion::kYes : Recursion::kNo;
      ++loops_;
      loop.body = parse_block({"endfor", "else"});
      --loops_;
      if (stream_.next().text == "else") {
        loop.otherwise = parse_block({"endfor"});
        stream_.next();
      }
      return 0;
    });
    return loop;
  }

  Statement::Node parse_if() {
    return with_unknown_names_as_errors(false, [&] {
      If node;
      std::string end = "elif";
      while (end == "elif") {
        ExpressionPtr test = expressions_.parse_tuple(Conditionals::kNot);
        node.branches.emplace_back(std::move(test), parse_block({"elif", "else", "endif"}));
        end = stream_.next().text;
      }
      if (end == "else") {
        node.otherwise = parse_block({"endif"});
        stream_.next();
      }
      return Statement::Node(std::move(node));
    });
  }

  Statement::Node parse_set() {
    ExpressionPtr target = expressions_.parse_target(NamespaceTargets::kAllowed);
    if (stream_.skip_op("=")) return Set{std::move(target), expressions_.parse_tuple()};
    SetBlock block;
    block.target = std::move(target);
    with_unknown_names_as_errors(true, [&] {
      block.filter = expressions_.parse_filters(nullptr);
      return 0;
    });
    block.body = parse_inner_block("endset");
    return block;
  }

  Signature parse_signature() {
    Signature signature;
    stream_.expect_op("(");
    while (!stream_.is_op(")")) {
      if (!signature.parameters.empty()) stream_.expect_op(",");
      signature.parameters.push_back(stream_.expect_name());
      if (stream_.skip_op("=")) {
        signature.defaults.push_back(expressions_.parse_expression());
      } else if (!signature.defaults.empty()) {
        throw SyntaxError(stream_.line(), "a parameter without default follows one with a default");
      }
    }
    stream_.expect_op(")");
    return signature;
  }

  // A macro's or call block's body; finds out which special names it reads.
  Block parse_macro_body(Signature& signature, std::string_view end) {
    const ExpressionParser::Mentions before = expressions_.mentions();
    const int outer_loops = std::exchange(loops_, 0);
    Block body = parse_inner_block(end);
    loops_ = outer_loops;
    const ExpressionParser::Mentions& after = expressions_.mentions();
    const auto is_parameter = [&](std::string_view name) {
      return std::find(signature.parameters.begin(), signature.parameters.end(), name) != signature.parameters.end();
    };
    signature.takes_caller = after.caller > before.caller && !is_parameter("caller");
    signature.takes_kwargs = after.kwargs > before.kwargs && !is_parameter("kwargs");
    signature.takes_varargs = after.varargs > before.varargs && !is_parameter("varargs");
    return body;
  }

  Statement::Node parse_macro() {
    MacroDefinition macro;
    macro.name = stream_.expect_name();
    macro.signature = parse_signature();
    macro.body = parse_macro_body(macro.signature, "endmacro");
    return macro;
  }

  Statement::Node parse_call() {
    CallBlock block;
    const int line = stream_.line();
    if (stream_.is_op("(")) block.signature = parse_signature();
    block.call = expressions_.parse_expression();
    if (!std::holds_alternative<Call>(block.call->node)) throw SyntaxError(line, "expected a call in a call block");
    block.body = parse_macro_body(block.signature, "endcall");
    return block;
  }

  Statement::Node parse_filter() {
    FilterBlock block;
    with_unknown_names_as_errors(true, [&] {
      block.filter = expressions_.parse_filters(nullptr, true);
      return 0;
    });
    block.body = parse_inner_block("endfilter");
    return block;
  }

  Statement::Node parse_with() {
    With with;
    while (!stream_.is(TokenKind::kBlockEnd)) {
      if (!with.bindings.empty()) stream_.expect_op(",");
      ExpressionPtr target = expressions_.parse_target(NamespaceTargets::kNot);
      stream_.expect_op("=");
      with.bindings.emplace_back(std::move(target), expressions_.parse_expression());
    }
    with.body = parse_inner_block("endwith");
    return with;
  }

  Statement::Node parse_named_block() {
    const int line = stream_.line();
    const std::string name = stream_.expect_name();
    if (std::find(block_names_.begin(), block_names_.end(), name) != block_names_.end()) {
      throw SyntaxError(line, fmt::format("block '{}' is defined twice", name));
    }
    block_names_.push_back(name);
    const int outer_loops = std::exchange(loops_, 0);
    Scoped block{parse_inner_block("endblock")};
    loops_ = outer_loops;
    stream_.skip_name(name);
    return block;
  }

  Statement::Node parse_generation() { return Scoped{parse_inner_block("endgeneration")}; }

  Statement::Node parse_print() {
    Output output;
    while (!stream_.is(TokenKind::kBlockEnd)) {
      if (!output.parts.empty()) stream_.expect_op(",");
      output.parts.push_back(expressions_.parse_expression());
    }
    return output;
  }

  Statement::Node parse_break() {
    if (loops_ == 0) throw SyntaxError(stream_.line(), "'break' outside of a loop");
    return Break{};
  }

  Statement::Node parse_continue() {
    if (loops_ == 0) throw SyntaxError(stream_.line(), "'continue' outside of a loop");
    return Continue{};
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  std::vector<std::string> block_names_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace octet::jinja
