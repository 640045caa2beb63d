// What Swift needs of OpenSSL: the library's headers, and static inline helpers for what can't be imported.
#pragma once
// MD5_Init, MD5_Update and MD5_Final are deprecated in favour of EVP, which doesn't let its state be taken out and put
// back. An upload's digest outlives its process that way. The functions stay in OpenSSL 3; each returns 1 (md5(7)).
#ifndef OPENSSL_SUPPRESS_DEPRECATED
#define OPENSSL_SUPPRESS_DEPRECATED
#endif
#include <openssl/evp.h>
#include <openssl/md5.h>
