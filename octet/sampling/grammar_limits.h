// What is refused before anybody tries to compile it: specs that are too large or nested too deep, and what xgrammar
// would leave out in silence.
#pragma once

#include "octet/sampling/grammar.h"

namespace octet {

// Throws Error{kInvalid} that says what is wrong, and kUnsupported that names what octet does not support.
void check_grammar(const GrammarSpec& spec);

}  // namespace octet
