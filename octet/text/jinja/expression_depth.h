// How deep an expression's tree is: the parser bounds it, so that walking and freeing a tree cannot exhaust the stack.
#pragma once

#include "octet/text/jinja/ast.h"

namespace octet::jinja {

// The largest depth among a node's children; 0 for a leaf.
int depth_below(const Expression::Node& node);

}  // namespace octet::jinja
