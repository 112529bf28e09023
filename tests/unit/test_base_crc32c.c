/* CRC-32C: the values of RFC 3720, B.4; the instruction against the table at every length and
 * alignment; chaining. */
#include "base/crc32c.h"
#include "test.h"

static void known(void)
{
    uint8_t b[32];
    CHECK(hd_crc32c(0, "123456789", 9) == 0xe3069283);
    CHECK(hd_crc32c_table(0, "123456789", 9) == 0xe3069283);
    CHECK(hd_crc32c(0, "", 0) == 0);
    memset(b, 0, 32);
    CHECK(hd_crc32c(0, b, 32) == 0x8a9136aa);
    memset(b, 255, 32);
    CHECK(hd_crc32c(0, b, 32) == 0x62a8ab43);
    for (int i = 0; i < 32; i++) b[i] = (uint8_t)i;
    CHECK(hd_crc32c(0, b, 32) == 0x46dd794e);
    for (int i = 0; i < 32; i++) b[i] = (uint8_t)(31 - i);
    CHECK(hd_crc32c(0, b, 32) == 0x113fdb5c);
}

static void agree(void)
{
    static uint8_t b[600];
    int wrong = 0, unchained = 0;
    for (int i = 0; i < 600; i++) b[i] = (uint8_t)(i * 7 + (i >> 3));
    for (size_t at = 0; at < 9; at++)
        for (size_t n = 0; n < 560; n++) {
            uint32_t want = hd_crc32c_table(0, b + at, n);
            wrong += hd_crc32c(0, b + at, n) != want;
            unchained += hd_crc32c(hd_crc32c(0, b + at, n / 3), b + at + n / 3, n - n / 3) != want;
        }
    CHECK(wrong == 0, "%d differ", wrong);
    CHECK(unchained == 0, "%d differ", unchained);
}

int main(void)
{
    known();
    agree();
    return hd_test_end();
}
