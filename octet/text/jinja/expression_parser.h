// Recursive descent over tokens for expressions; jinja2's grammar and precedence.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "octet/text/jinja/ast.h"
#include "octet/text/jinja/lexer.h"

namespace octet::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}  // ends with kEnd

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  int line() const { return current().line; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }

  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_name(std::string_view name) const { return is(TokenKind::kName) && current().text == name; }
  bool is_op(std::string_view op) const { return is(TokenKind::kOperator) && current().text == op; }
  bool skip_name(std::string_view name);
  bool skip_op(std::string_view op);
  void expect(TokenKind kind, std::string_view what);
  void expect_op(std::string_view op);
  std::string expect_name();
  [[noreturn]] void unexpected(std::string_view wanted) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

enum class Conditionals { kAllowed, kNot };  // whether "a if b" may be parsed here
enum class TupleForm { kBare, kParenthesised };

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  ExpressionPtr parse_expression(Conditionals conditionals = Conditionals::kAllowed);
  // "a, b" makes a tuple.
  ExpressionPtr parse_tuple(Conditionals conditionals = Conditionals::kAllowed, TupleForm form = TupleForm::kBare);
  // The left side of a for, set or with: names and tuples of them, and ns.x where namespaces are allowed.
  enum class NamespaceTargets { kAllowed, kNot };
  ExpressionPtr parse_target(NamespaceTargets namespaces);
  // "| a | b" behind `subject` (null in a filter block, whose first filter has no bar).
  ExpressionPtr parse_filters(ExpressionPtr subject, bool first_without_bar = false);

  // jinja2 checks the names of filters and tests when it compiles, except inside conditional branches.
  bool unknown_names_are_errors() const { return unknown_names_are_errors_; }
  void set_unknown_names_are_errors(bool value) { unknown_names_are_errors_ = value; }

  // How often names that make a macro take more than its parameters have been read so far.
  struct Mentions {
    int caller = 0, kwargs = 0, varargs = 0;
  };
  const Mentions& mentions() const { return mentions_; }

 private:
  class Nesting;  // counts recursion
  ExpressionPtr make(int line, Expression::Node node);
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  enum class Filters { kAllowed, kNot };
  ExpressionPtr parse_unary(Filters filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_named();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_postfix_filters(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_index();
  ExpressionPtr parse_test(ExpressionPtr node);
  CallArguments parse_arguments();
  void parse_argument(CallArguments& arguments);
  std::string parse_dotted_name();
  ExpressionPtr parse_simple_target(NamespaceTargets namespaces);

  TokenStream& stream_;
  void unknown_name(int line, const std::string& text);

  bool unknown_names_are_errors_ = true;
  int conditionals_ = 0;                     // parse_conditional calls under way
  std::optional<SyntaxError> unknown_name_;  // found in one of them
  Mentions mentions_;
  int nesting_ = 0;
};

}  // namespace octet::jinja
