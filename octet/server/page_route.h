// How the files of the page are sent.
#pragma once

#include "octet/server/http_message.h"
#include "octet/server/page_files.h"

namespace octet {

// With a policy that lets the page use nothing but this server, and an entity tag: 304 where the client has it.
HttpResponse page_response(const PageFile& file, const HttpRequest& request);

}  // namespace octet
