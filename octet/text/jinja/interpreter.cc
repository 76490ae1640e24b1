#include "octet/text/jinja/interpreter.h"

#include "octet/text/jinja/builtins.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->outer_) {
    for (const auto& [held, value] : scope->names_) {
      if (held == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [held, old] : names_) {
    if (held == name) {
      old = std::move(value);
      return;
    }
  }
  names_.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const RenderLimits& limits, std::optional<int64_t> now_unix_seconds)
    : Runtime(limits.max_steps, limits.max_output_bytes), limits_(limits), now_(now_unix_seconds) {}

Text Interpreter::render(const Block& block, const std::vector<std::pair<std::string, Value>>& variables) {
  auto* scope = make<Scope>(nullptr);
  for (const auto& [name, value] : variables) scope->set(name, value);
  TextBuilder out;
  execute(block, scope, out);
  return out.build();
}

Value Interpreter::evaluate(const Expression& expression, Scope* scope) {
  const Nested nested(*this);
  spend(1);
  line_ = expression.line;
  return std::visit([&](const auto& node) { return evaluate(node, scope); }, expression.node);
}

Value Interpreter::evaluate(const Literal& node, Scope*) { return node.value; }

Value Interpreter::evaluate(const Name& node, Scope* scope) {
  if (const Value* value = scope->find(node.name)) return *value;
  if (auto global = find_global(*this, node.name)) return *std::move(global);
  return Undefined{fmt::format("'{}' is undefined", node.name)};
}

Value Interpreter::evaluate(const MakeSequence& node, Scope* scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) items.push_back(evaluate(*item, scope));
  return make_sequence(node.type, std::move(items));
}

Value Interpreter::evaluate(const MakeDict& node, Scope* scope) {
  auto* dict = make<Dict>();
  for (const auto& [key, value] : node.items) {
    const Value evaluated_key = evaluate(*key, scope);
    dict->set(evaluated_key, evaluate(*value, scope));
  }
  return Value(dict);
}

Value Interpreter::evaluate(const GetAttribute& node, Scope* scope) {
  return get_attribute(evaluate(*node.object, scope), node.name);
}

Value Interpreter::evaluate(const GetItem& node, Scope* scope) {
  const Value object = evaluate(*node.object, scope);
  const auto* slicing = std::get_if<MakeSlice>(&node.index->node);
  if (!slicing) return get_item(object, evaluate(*node.index, scope));
  const auto bound = [&](const ExpressionPtr& expression) {
    return expression ? evaluate(*expression, scope) : Value(None{});
  };
  return slice(*this, object, Slice{bound(slicing->begin), bound(slicing->end), bound(slicing->step)});
}

Value Interpreter::evaluate(const MakeSlice&, Scope*) { raise("a slice among several indices is not supported"); }

Value Interpreter::evaluate(const Call& node, Scope* scope) { return call_with(node, scope, nullptr); }

Value Interpreter::call_with(const Call& node, Scope* scope, const Value* caller) {
  const Value callee = evaluate(*node.callee, scope);
  Arguments arguments = evaluate(node.arguments, scope);
  if (caller) arguments.named.emplace_back("caller", *caller);
  return call(callee, arguments);
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  const Nested nested(*this);
  if (callee.is_undefined()) raise_undefined(callee);
  auto* callable = callee.as<Callable>();
  if (!callable) raise("'{}' object is not callable", type_name(callee));
  const int line = line_;
  Value result = callable->call(*this, arguments);
  line_ = line;
  return result;
}

Arguments Interpreter::evaluate(const CallArguments& node, Scope* scope) {
  Arguments arguments;
  for (const ExpressionPtr& argument : node.positional) arguments.positional.push_back(evaluate(*argument, scope));
  for (const auto& [name, argument] : node.named) arguments.named.emplace_back(name, evaluate(*argument, scope));
  if (node.unpacked_list) {
    for (Value& item : to_vector(*this, evaluate(*node.unpacked_list, scope)))
      arguments.positional.push_back(std::move(item));
  }
  if (node.unpacked_dict) {
    const Value unpacked = evaluate(*node.unpacked_dict, scope);
    const Dict* dict = as_dict(unpacked);
    if (!dict) raise("argument after ** must be a dict, not {}", type_name(unpacked));
    for (const auto& [key, value] : dict->items()) {
      const std::string name(need_text(key, "keyword").bytes());
      for (const auto& [other, held] : arguments.named) {
        if (other == name) raise("argument '{}' is given twice", name);
      }
      arguments.named.emplace_back(name, value);
      spend(static_cast<int64_t>(arguments.named.size()));
    }
  }
  return arguments;
}

Value Interpreter::evaluate(const ApplyFilter& node, Scope* scope) {
  const Value subject = node.subject ? evaluate(*node.subject, scope) : Value(*block_text_);
  return apply_filter(node.name, subject, evaluate(node.arguments, scope));
}

Value Interpreter::apply_filter(std::string_view name, const Value& subject, const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (!filter) raise("no filter named '{}'", name);
  spend_bytes(subject.is_text() ? subject.text().bytes().size() : 0);
  return filter->apply(*this, subject, bind_arguments(name, filter->parameters, arguments), arguments);
}

Value Interpreter::evaluate(const ApplyTest& node, Scope* scope) {
  const Value subject = evaluate(*node.subject, scope);
  return apply_test(node.name, subject, evaluate(node.arguments, scope));
}

bool Interpreter::apply_test(std::string_view name, const Value& subject, const Arguments& arguments) {
  const Test* test = find_test(name);
  if (!test) raise("no test named '{}'", name);
  return test->apply(*this, subject, bind_arguments(name, test->parameters, arguments));
}

Value Interpreter::evaluate(const Unary& node, Scope* scope) {
  const Value operand = evaluate(*node.operand, scope);
  switch (node.op) {
    case UnaryOp::kNot:
      return !truthy(operand);
    case UnaryOp::kNegative:
      return negative(operand);
    case UnaryOp::kPositive:
      return positive(operand);
  }
  return None{};
}

Value Interpreter::evaluate(const Binary& node, Scope* scope) {
  Value left = evaluate(*node.left, scope);
  if (node.op == BinaryOp::kAnd) return truthy(left) ? evaluate(*node.right, scope) : left;
  if (node.op == BinaryOp::kOr) return truthy(left) ? left : evaluate(*node.right, scope);
  const Value right = evaluate(*node.right, scope);
  return arithmetic(*this, node.op, left, right);
}

Value Interpreter::evaluate(const Compare& node, Scope* scope) {
  Value left = evaluate(*node.first, scope);
  for (const auto& [op, operand] : node.rest) {
    Value right = evaluate(*operand, scope);
    if (!compare(*this, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate(const Concat& node, Scope* scope) {
  TextBuilder out;
  for (const ExpressionPtr& part : node.parts) append(out, to_text(*this, evaluate(*part, scope)));
  return out.build();
}

Value Interpreter::evaluate(const Conditional& node, Scope* scope) {
  if (truthy(evaluate(*node.test, scope))) return evaluate(*node.then, scope);
  if (node.otherwise) return evaluate(*node.otherwise, scope);
  return Undefined{"the inline if-expression evaluated to false and no else section was defined"};
}

Value Interpreter::evaluate(const NamespaceTarget&, Scope*) { raise("a namespace target is no expression"); }

// The sandbox hides names that start with an underscore.
Value Interpreter::get_attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) raise_undefined(object);
  if (!name.starts_with("_")) {
    if (auto method = find_method(*this, object, name)) return *std::move(method);
    if (auto* callable = object.as<Callable>()) {
      if (auto attribute = callable->attribute(*this, name)) return *std::move(attribute);
    }
  }
  if (const auto* space = object.as<Namespace>()) {
    const auto found = space->attributes.find(std::string(name));
    if (found != space->attributes.end()) return found->second;
  }
  if (const Dict* dict = as_dict(object)) {
    if (const Value* found = dict->find_text(name)) return *found;
  }
  return Undefined{fmt::format("'{} object' has no attribute '{}'", type_name(object), name)};
}

Value Interpreter::get_item(const Value& object, const Value& index) {
  if (auto found = subscript(*this, object, index)) return *std::move(found);
  if (index.is_text() && !as_dict(object)) return get_attribute(object, index.text().bytes());
  if (index.is_text() && !index.text().bytes().starts_with("_")) {
    if (auto method = find_method(*this, object, index.text().bytes())) return *std::move(method);
  }
  return Undefined{
      fmt::format("'{} object' has no element {}", type_name(object),
                  index.object() ? type_name(index) : std::string(to_text(*this, index).bytes().substr(0, 60)))};
}

void Interpreter::append(TextBuilder& out, const Text& text) {
  reserve_text(Integer(text.bytes().size()));
  if (static_cast<int64_t>(out.size() + text.bytes().size()) > limits_.max_output_bytes) {
    raise("the template makes a text of more than {} bytes", limits_.max_output_bytes);
  }
  out.append(text);
}

Value Interpreter::apply_block_filters(const Expression* filter, Scope* scope, Text text) {
  if (!filter) return text;
  const Text* outer = std::exchange(block_text_, &text);
  Value result = evaluate(*filter, scope);
  block_text_ = outer;
  return result;
}

}  // namespace octet::jinja
