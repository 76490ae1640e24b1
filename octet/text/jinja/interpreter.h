// Runs a parsed template. One object per rendering.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/text/chat_template.h"
#include "octet/text/jinja/ast.h"
#include "octet/text/jinja/runtime.h"

namespace octet::jinja {

// Names visible at one place: a for body, a macro body, ... Inner scopes see the outer ones, sets stay in their own.
class Scope : public Object {
 public:
  static constexpr ObjectKind kKind = ObjectKind::kScope;
  explicit Scope(Scope* outer) : Object(kKind), outer_(outer) {}
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);

 private:
  Scope* outer_;
  std::vector<std::pair<std::string_view, Value>> names_;  // the names live in the parsed template
};

class Interpreter : public Runtime {
 public:
  Interpreter(const RenderLimits& limits, std::optional<int64_t> now_unix_seconds);

  // `variables` are what the caller passes to the template. Raises Raised; line() then tells where.
  Text render(const Block& block, const std::vector<std::pair<std::string, Value>>& variables);
  int line() const { return line_; }
  std::optional<int64_t> now_unix_seconds() const { return now_; }

  // For builtins.
  Value call(const Value& callee, const Arguments& arguments);
  Value apply_filter(std::string_view name, const Value& subject, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& subject, const Arguments& arguments);
  Value get_attribute(const Value& object, std::string_view name);
  Value get_item(const Value& object, const Value& index);

  // For macros and recursive loops.
  Value call_macro(const Signature& signature, const Block& body, Scope* closure, std::string_view name,
                   const Arguments& arguments);
  Value call_loop(const For& loop, Scope* scope, const Value& iterable, int depth);

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  Flow execute(const Block& block, Scope* scope, TextBuilder& out);
  Flow execute(const Statement& statement, Scope* scope, TextBuilder& out);
  Flow run(const Output& node, Scope* scope, TextBuilder& out);
  Flow run(const Set& node, Scope* scope, TextBuilder& out);
  Flow run(const SetBlock& node, Scope* scope, TextBuilder& out);
  Flow run(const If& node, Scope* scope, TextBuilder& out);
  Flow run(const For& node, Scope* scope, TextBuilder& out);
  Flow run(const MacroDefinition& node, Scope* scope, TextBuilder& out);
  Flow run(const CallBlock& node, Scope* scope, TextBuilder& out);
  Flow run(const FilterBlock& node, Scope* scope, TextBuilder& out);
  Flow run(const With& node, Scope* scope, TextBuilder& out);
  Flow run(const Scoped& node, Scope* scope, TextBuilder& out);
  Flow run(const Break& node, Scope* scope, TextBuilder& out);
  Flow run(const Continue& node, Scope* scope, TextBuilder& out);
  Flow run_loop(const For& node, Scope* scope, std::vector<Value> items, int depth, TextBuilder& out);
  std::vector<Value> loop_items(const For& node, Scope* scope, const Value& iterable);
  Value apply_block_filters(const Expression* filter, Scope* scope, Text text);
  void append(TextBuilder& out, const Text& text);
  void assign(const Expression& target, Value value, Scope* scope);

  Value evaluate(const Expression& expression, Scope* scope);
  Value evaluate(const Literal& node, Scope* scope);
  Value evaluate(const Name& node, Scope* scope);
  Value evaluate(const MakeSequence& node, Scope* scope);
  Value evaluate(const MakeDict& node, Scope* scope);
  Value evaluate(const GetAttribute& node, Scope* scope);
  Value evaluate(const GetItem& node, Scope* scope);
  Value evaluate(const MakeSlice& node, Scope* scope);
  Value evaluate(const Call& node, Scope* scope);
  Value evaluate(const ApplyFilter& node, Scope* scope);
  Value evaluate(const ApplyTest& node, Scope* scope);
  Value evaluate(const Unary& node, Scope* scope);
  Value evaluate(const Binary& node, Scope* scope);
  Value evaluate(const Compare& node, Scope* scope);
  Value evaluate(const Concat& node, Scope* scope);
  Value evaluate(const Conditional& node, Scope* scope);
  Value evaluate(const NamespaceTarget& node, Scope* scope);
  Value call_with(const Call& node, Scope* scope, const Value* caller);
  Arguments evaluate(const CallArguments& arguments, Scope* scope);

  const RenderLimits limits_;
  const std::optional<int64_t> now_;
  int line_ = 0;
  int calls_ = 0;                     // of macros and recursive loops
  const Text* block_text_ = nullptr;  // the subject of a filter or set block's first filter
};

}  // namespace octet::jinja
