// The interpreter's statements, macros and loops.
#include <algorithm>

#include "octet/text/jinja/builtins.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

// A macro, or the body of a call block as `caller`.
class Macro : public Callable {
 public:
  Macro(std::string_view macro_name, const Signature& signature, const Block& body, Scope* closure)
      : Callable(std::string(macro_name)), signature_(signature), body_(body), closure_(closure) {}

  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    return interpreter.call_macro(signature_, body_, closure_, name, arguments);
  }
  std::string type_name() const override { return "Macro"; }
  std::optional<Value> attribute(Interpreter&, std::string_view wanted) override {
    if (wanted == "name") return trusted(name);
    return std::nullopt;
  }

 private:
  const Signature& signature_;
  const Block& body_;
  Scope* closure_;
};

// What `loop` is inside a for.
class Loop : public Callable {
 public:
  Loop(const For& node, Scope* scope, std::vector<Value> items, int depth)
      : Callable("loop"), items_(std::move(items)), node_(node), scope_(scope), depth_(depth) {}

  const std::vector<Value>& items() const { return items_; }
  void set_index(size_t index) { index_ = index; }

  bool can_call() const override { return node_.recursion == Recursion::kYes; }
  std::string type_name() const override { return "LoopContext"; }

  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    if (!can_call()) raise("the loop is not marked as 'recursive'");
    const Bound bound = bind_arguments("loop", "iterable", arguments);
    return interpreter.call_loop(node_, scope_, *bound[0], depth_ + 1);
  }

  std::optional<Value> attribute(Interpreter& interpreter, std::string_view wanted) override {
    const auto index = static_cast<int64_t>(index_), size = static_cast<int64_t>(items_.size());
    if (wanted == "index") return Value(index + 1);
    if (wanted == "index0") return Value(index);
    if (wanted == "revindex") return Value(size - index);
    if (wanted == "revindex0") return Value(size - index - 1);
    if (wanted == "first") return Value(index == 0);
    if (wanted == "last") return Value(index + 1 == size);
    if (wanted == "length") return Value(size);
    if (wanted == "depth") return Value(depth_ + 1);
    if (wanted == "depth0") return Value(depth_);
    if (wanted == "previtem") return index > 0 ? items_[index_ - 1] : Value(Undefined{"there is no previous item"});
    if (wanted == "nextitem") return index + 1 < size ? items_[index_ + 1] : Value(Undefined{"there is no next item"});
    if (wanted == "cycle") return method(interpreter, "cycle", &Loop::cycle);
    if (wanted == "changed") return method(interpreter, "changed", &Loop::changed);
    return std::nullopt;
  }

 private:
  using Member = Value (Loop::*)(Interpreter&, const Arguments&);

  class Method : public Callable {
   public:
    Method(std::string method_name, Loop& loop, Member member)
        : Callable(std::move(method_name)), loop_(loop), member_(member) {}
    Value call(Interpreter& interpreter, const Arguments& arguments) override {
      return (loop_.*member_)(interpreter, arguments);
    }

   private:
    Loop& loop_;
    Member member_;
  };

  Value method(Interpreter& interpreter, std::string method_name, Member member) {
    return Value(interpreter.make<Method>(std::move(method_name), *this, member));
  }

  Value cycle(Interpreter&, const Arguments& arguments) {
    if (arguments.positional.empty()) raise("loop.cycle: no items for cycling given");
    return arguments.positional[index_ % arguments.positional.size()];
  }

  Value changed(Interpreter& interpreter, const Arguments& arguments) {
    const Value now = interpreter.make_tuple(arguments.positional);
    if (last_changed_ && equal(interpreter, *last_changed_, now)) return false;
    last_changed_ = now;
    return true;
  }

  std::vector<Value> items_;
  size_t index_ = 0;
  std::optional<Value> last_changed_;
  const For& node_;
  Scope* scope_;
  int depth_;
};

}  // namespace

Interpreter::Flow Interpreter::execute(const Block& block, Scope* scope, TextBuilder& out) {
  for (const Statement& statement : block) {
    const Flow flow = execute(statement, scope, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, Scope* scope, TextBuilder& out) {
  const Nested nested(*this);
  spend(1);
  line_ = statement.line;
  return std::visit([&](const auto& node) { return run(node, scope, out); }, statement.node);
}

Interpreter::Flow Interpreter::run(const Output& node, Scope* scope, TextBuilder& out) {
  for (const ExpressionPtr& part : node.parts) append(out, to_text(*this, evaluate(*part, scope)));
  return Flow::kNormal;
}

void Interpreter::assign(const Expression& target, Value value, Scope* scope) {
  if (const auto* name = std::get_if<Name>(&target.node)) return scope->set(name->name, std::move(value));
  if (const auto* attribute = std::get_if<NamespaceTarget>(&target.node)) {
    const Value* held = scope->find(attribute->name);
    auto* space = held ? held->as<Namespace>() : nullptr;
    if (!space) raise("cannot assign attribute on non-namespace object");
    space->attributes[attribute->attribute] = std::move(value);
    return;
  }
  const auto& targets = std::get<MakeSequence>(target.node).items;
  const std::vector<Value> items = to_vector(*this, value);
  if (items.size() != targets.size()) raise("cannot unpack {} values into {} names", items.size(), targets.size());
  for (size_t i = 0; i < items.size(); ++i) assign(*targets[i], items[i], scope);
}

Interpreter::Flow Interpreter::run(const Set& node, Scope* scope, TextBuilder&) {
  assign(*node.target, evaluate(*node.value, scope), scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const SetBlock& node, Scope* scope, TextBuilder&) {
  auto* inner = make<Scope>(scope);
  TextBuilder text;
  const Flow flow = execute(node.body, inner, text);
  if (flow != Flow::kNormal) return flow;
  assign(*node.target, apply_block_filters(node.filter.get(), inner, text.build()), scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const If& node, Scope* scope, TextBuilder& out) {
  for (const auto& [test, body] : node.branches) {
    if (truthy(evaluate(*test, scope))) return execute(body, scope, out);
  }
  return execute(node.otherwise, scope, out);
}

std::vector<Value> Interpreter::loop_items(const For& node, Scope* scope, const Value& iterable) {
  std::vector<Value> items = to_vector(*this, iterable);
  if (!node.filter) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    auto* inner = make<Scope>(scope);
    assign(*node.target, item, inner);
    if (truthy(evaluate(*node.filter, inner))) kept.push_back(std::move(item));
  }
  return kept;
}

Interpreter::Flow Interpreter::run(const For& node, Scope* scope, TextBuilder& out) {
  return run_loop(node, scope, loop_items(node, scope, evaluate(*node.iterable, scope)), 0, out);
}

// jinja2 runs the else branch when no pass reached the end of the body, be it for a break or continue.
Interpreter::Flow Interpreter::run_loop(const For& node, Scope* scope, std::vector<Value> items, int depth,
                                        TextBuilder& out) {
  auto* loop = make<Loop>(node, scope, std::move(items), depth);
  bool completed_one = false;
  for (size_t i = 0; i < loop->items().size(); ++i) {
    loop->set_index(i);
    auto* inner = make<Scope>(scope);
    inner->set("loop", Value(loop));
    assign(*node.target, loop->items()[i], inner);
    const Flow flow = execute(node.body, inner, out);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) completed_one = true;
  }
  if (completed_one) return Flow::kNormal;
  return execute(node.otherwise, make<Scope>(scope), out);
}

Value Interpreter::call_loop(const For& loop, Scope* scope, const Value& iterable, int depth) {
  if (++calls_ > limits_.max_depth) raise("the template recurses deeper than {}", limits_.max_depth);
  TextBuilder out;
  run_loop(loop, scope, loop_items(loop, scope, iterable), depth, out);
  --calls_;
  return out.build();
}

Interpreter::Flow Interpreter::run(const MacroDefinition& node, Scope* scope, TextBuilder&) {
  scope->set(node.name, Value(make<Macro>(node.name, node.signature, node.body, scope)));
  return Flow::kNormal;
}

Value Interpreter::call_macro(const Signature& signature, const Block& body, Scope* closure, std::string_view name,
                              const Arguments& arguments) {
  if (++calls_ > limits_.max_depth) raise("the template recurses deeper than {}", limits_.max_depth);
  const size_t num_parameters = signature.parameters.size(), num_positional = arguments.positional.size();
  auto* scope = make<Scope>(closure);
  auto named = arguments.named;
  const auto take_named = [&](std::string_view wanted) -> std::optional<Value> {
    const auto found = std::find_if(named.begin(), named.end(), [&](const auto& pair) { return pair.first == wanted; });
    if (found == named.end()) return std::nullopt;
    Value value = std::move(found->second);
    named.erase(found);
    return value;
  };
  std::vector<std::optional<Value>> given(num_parameters);
  for (size_t i = 0; i < num_parameters; ++i) {
    given[i] = i < num_positional ? std::optional(arguments.positional[i]) : take_named(signature.parameters[i]);
  }
  if (signature.takes_caller) {
    const auto caller = take_named("caller");
    scope->set("caller", caller && !caller->is_none() ? *caller : Value(Undefined{"no caller defined"}));
  }
  if (signature.takes_kwargs) {
    auto* dict = make<Dict>();
    for (const auto& [key, value] : named) dict->set(trusted(key), value);
    scope->set("kwargs", Value(dict));
  } else if (!named.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", name, named[0].first);
  }
  if (num_positional > num_parameters && !signature.takes_varargs) {
    raise("macro '{}' takes not more than {} argument(s)", name, num_parameters);
  }
  if (signature.takes_varargs) {
    const auto rest = arguments.positional.begin() + static_cast<ptrdiff_t>(std::min(num_parameters, num_positional));
    scope->set("varargs", make_tuple(std::vector<Value>(rest, arguments.positional.end())));
  }
  const size_t first_default = num_parameters - signature.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    if (!given[i]) {
      given[i] = i >= first_default
                     ? evaluate(*signature.defaults[i - first_default], scope)
                     : Value(Undefined{fmt::format("parameter '{}' was not provided", signature.parameters[i])});
    }
    scope->set(signature.parameters[i], *given[i]);
  }
  TextBuilder out;
  execute(body, scope, out);
  --calls_;
  return out.build();
}

Interpreter::Flow Interpreter::run(const CallBlock& node, Scope* scope, TextBuilder& out) {
  const Value caller(make<Macro>("caller", node.signature, node.body, scope));
  append(out, to_text(*this, call_with(std::get<Call>(node.call->node), scope, &caller)));
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const FilterBlock& node, Scope* scope, TextBuilder& out) {
  auto* inner = make<Scope>(scope);
  TextBuilder text;
  const Flow flow = execute(node.body, inner, text);
  if (flow != Flow::kNormal) return flow;
  append(out, to_text(*this, apply_block_filters(node.filter.get(), inner, text.build())));
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const With& node, Scope* scope, TextBuilder& out) {
  auto* inner = make<Scope>(scope);
  for (const auto& [target, value] : node.bindings) assign(*target, evaluate(*value, scope), inner);
  return execute(node.body, inner, out);
}

Interpreter::Flow Interpreter::run(const Scoped& node, Scope* scope, TextBuilder& out) {
  return execute(node.body, make<Scope>(scope), out);
}

Interpreter::Flow Interpreter::run(const Break&, Scope*, TextBuilder&) { return Flow::kBreak; }
Interpreter::Flow Interpreter::run(const Continue&, Scope*, TextBuilder&) { return Flow::kContinue; }

}  // namespace octet::jinja
