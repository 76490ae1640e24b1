// Template source to statements.
#pragma once

#include <string_view>

#include "octet/text/jinja/ast.h"
#include "octet/text/jinja/lexer.h"

namespace octet::jinja {

// Throws SyntaxError.
Block parse_template(std::string_view source);

}  // namespace octet::jinja
