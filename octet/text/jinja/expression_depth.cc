#include "octet/text/jinja/expression_depth.h"

#include <algorithm>

namespace octet::jinja {
namespace {

int depth_of(const ExpressionPtr& child) { return child ? child->depth : 0; }

int depth_of(const std::vector<ExpressionPtr>& children) {
  int depth = 0;
  for (const ExpressionPtr& child : children) depth = std::max(depth, depth_of(child));
  return depth;
}

int depth_of(const CallArguments& arguments) {
  int depth = std::max(depth_of(arguments.positional),
                       std::max(depth_of(arguments.unpacked_list), depth_of(arguments.unpacked_dict)));
  for (const auto& [name, value] : arguments.named) depth = std::max(depth, depth_of(value));
  return depth;
}

struct ChildDepth {
  int operator()(const Literal&) const { return 0; }
  int operator()(const Name&) const { return 0; }
  int operator()(const NamespaceTarget&) const { return 0; }
  int operator()(const MakeSequence& node) const { return depth_of(node.items); }
  int operator()(const MakeDict& node) const {
    int depth = 0;
    for (const auto& [key, value] : node.items) depth = std::max(depth, std::max(depth_of(key), depth_of(value)));
    return depth;
  }
  int operator()(const GetAttribute& node) const { return depth_of(node.object); }
  int operator()(const GetItem& node) const { return std::max(depth_of(node.object), depth_of(node.index)); }
  int operator()(const MakeSlice& node) const {
    return std::max(depth_of(node.begin), std::max(depth_of(node.end), depth_of(node.step)));
  }
  int operator()(const Call& node) const { return std::max(depth_of(node.callee), depth_of(node.arguments)); }
  int operator()(const ApplyFilter& node) const { return std::max(depth_of(node.subject), depth_of(node.arguments)); }
  int operator()(const ApplyTest& node) const { return std::max(depth_of(node.subject), depth_of(node.arguments)); }
  int operator()(const Unary& node) const { return depth_of(node.operand); }
  int operator()(const Binary& node) const { return std::max(depth_of(node.left), depth_of(node.right)); }
  int operator()(const Compare& node) const {
    int depth = depth_of(node.first);
    for (const auto& [op, operand] : node.rest) depth = std::max(depth, depth_of(operand));
    return depth;
  }
  int operator()(const Concat& node) const { return depth_of(node.parts); }
  int operator()(const Conditional& node) const {
    return std::max(depth_of(node.test), std::max(depth_of(node.then), depth_of(node.otherwise)));
  }
};

}  // namespace

int depth_below(const Expression::Node& node) { return std::visit(ChildDepth(), node); }

}  // namespace octet::jinja
