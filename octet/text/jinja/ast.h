// The parsed template: expressions and statements as plain variants.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "octet/text/jinja/value.h"

namespace octet::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Block = std::vector<Statement>;

// What stands between the parentheses of a call, filter or test.
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr unpacked_list;  // *expression
  ExpressionPtr unpacked_dict;  // **expression
};

enum class UnaryOp { kNot, kNegative, kPositive };
enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower, kAnd, kOr };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct MakeSequence {
  SequenceType type;
  std::vector<ExpressionPtr> items;
};
struct MakeDict {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};
struct GetAttribute {
  ExpressionPtr object;
  std::string name;
};
struct GetItem {
  ExpressionPtr object, index;
};
struct MakeSlice {
  ExpressionPtr begin, end, step;
};  // only as the index of a GetItem; null where left out
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct ApplyFilter {
  ExpressionPtr subject;
  std::string name;
  CallArguments arguments;
};  // subject null: a block's text
struct ApplyTest {
  ExpressionPtr subject;
  std::string name;
  CallArguments arguments;
};
struct Unary {
  UnaryOp op;
  ExpressionPtr operand;
};
struct Binary {
  BinaryOp op;
  ExpressionPtr left, right;
};
struct Compare {
  ExpressionPtr first;
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;
};
struct Concat {
  std::vector<ExpressionPtr> parts;
};
struct Conditional {
  ExpressionPtr test, then, otherwise;
};  // otherwise may be null
struct NamespaceTarget {
  std::string name, attribute;
};  // ns.x on the left of a set

struct Expression {
  using Node = std::variant<Literal, Name, MakeSequence, MakeDict, GetAttribute, GetItem, MakeSlice, Call, ApplyFilter,
                            ApplyTest, Unary, Binary, Compare, Concat, Conditional, NamespaceTarget>;
  Node node;
  int line = 0;
  int depth = 1;  // of the tree below; the parser bounds it, so that walking and freeing it cannot exhaust the stack
};

struct Output {
  std::vector<ExpressionPtr> parts;
};
struct Set {
  ExpressionPtr target, value;
};
struct SetBlock {
  ExpressionPtr target, filter;
  Block body;
};  // filter may be null
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
enum class Recursion { kNo, kYes };
struct For {
  ExpressionPtr target, iterable, filter;  // filter may be null
  Recursion recursion;
  Block body, otherwise;
};
struct Signature {
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;                                     // of the last parameters
  bool takes_caller = false, takes_kwargs = false, takes_varargs = false;  // the body mentions these names
};
struct MacroDefinition {
  std::string name;
  Signature signature;
  Block body;
};
struct CallBlock {
  Signature signature;
  ExpressionPtr call;
  Block body;
};
struct FilterBlock {
  ExpressionPtr filter;
  Block body;
};
struct With {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> bindings;
  Block body;
};
struct Scoped {
  Block body;
};  // block, generation: names set inside stay inside
struct Break {};
struct Continue {};

struct Statement {
  using Node = std::variant<Output, Set, SetBlock, If, For, MacroDefinition, CallBlock, FilterBlock, With, Scoped,
                            Break, Continue>;
  Node node;
  int line = 0;
};

}  // namespace octet::jinja
