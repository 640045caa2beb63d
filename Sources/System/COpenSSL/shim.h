// What Swift needs of OpenSSL: the library's header, and static inline helpers for what can't be imported.
#pragma once
#include <openssl/evp.h>
