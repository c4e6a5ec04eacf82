// Columns of strings in Arrow's layouts, read where they lie.

#include <string.h>

#include "rawllama.h"

// A text in memory that the column owns.
struct text {
    const char * data;
    int64_t      size;
};

// One entry of a column of views: short texts lie in it, longer ones in one of the buffers.
struct view {
    int32_t size;
    union {
        char within[12];
        struct {
            char    prefix[4];
            int32_t buffer;
            int32_t offset;
        } at;
    };
};

static bool has_bit(const uint8_t * bits, int64_t i) {
    return !bits || (bits[i >> 3] >> (i & 7) & 1) != 0;
}

// Which value row i has: a dictionary's rows are indices of its values. -1 if the index is none.
static int64_t value_of(const struct rawllama_strings * column, int64_t i) {
    const int64_t row = column->first + i;
    uint64_t      index;
    switch (column->index_size) {
        case 0:
            return row;
        case 1:
            index = ((const uint8_t *) column->indices)[row];
            break;
        case 2:
            index = ((const uint16_t *) column->indices)[row];
            break;
        case 4:
            index = ((const uint32_t *) column->indices)[row];
            break;
        default:
            index = ((const uint64_t *) column->indices)[row];
            break;
    }
    return index < (uint64_t) column->n_values ? column->first_value + (int64_t) index : -1;
}

// The value at this place; a negative size where the column contradicts itself.
static struct text text_at(const struct rawllama_strings * column, int64_t value) {
    struct text text = { column->data, -1 };
    if (column->layout == RAWLLAMA_UTF8) {
        const int32_t * offsets = (const int32_t *) column->places + value;
        text.size = offsets[0] < 0 ? -1 : (int64_t) offsets[1] - offsets[0];
        text.data += text.size < 0 ? 0 : offsets[0];
    } else if (column->layout == RAWLLAMA_LARGE_UTF8) {
        const int64_t * offsets = (const int64_t *) column->places + value;
        text.size = offsets[0] < 0 || offsets[1] < offsets[0] ? -1 : offsets[1] - offsets[0];
        text.data += text.size < 0 ? 0 : offsets[0];
    } else {
        const struct view * view = (const struct view *) column->places + value;
        if (view->size <= (int32_t) sizeof(view->within)) {
            text.size = view->size;
            text.data = view->within;
        } else if (view->at.buffer >= 0 && view->at.buffer < column->n_buffers && view->at.offset >= 0) {
            text.size = view->size;
            text.data = column->buffers[view->at.buffer] + view->at.offset;
        }
    }
    return text;
}

static struct text text_of(const struct rawllama_strings * column, int64_t i) {
    return text_at(column, value_of(column, i));
}

static enum rawllama_strings_fault fault_of(const struct rawllama_strings * column, int64_t i) {
    if (!has_bit(column->present, column->first + i)) {
        return RAWLLAMA_STRINGS_MISSING;
    }
    const int64_t value = value_of(column, i);
    if (value < 0) {
        return RAWLLAMA_STRINGS_BROKEN;
    }
    if (column->index_size && !has_bit(column->value_present, value)) {
        return RAWLLAMA_STRINGS_MISSING;
    }
    const int64_t size = text_at(column, value).size;
    return size < 0 ? RAWLLAMA_STRINGS_BROKEN : size > INT32_MAX ? RAWLLAMA_STRINGS_TOO_LONG : RAWLLAMA_STRINGS_FINE;
}

int64_t rawllama_strings_check(const struct rawllama_strings * column, enum rawllama_strings_fault * fault) {
    for (int64_t i = 0; i < column->n; i++) {
        *fault = fault_of(column, i);
        if (*fault != RAWLLAMA_STRINGS_FINE) {
            return i;
        }
    }
    return column->n;
}

const char * rawllama_strings_locate(
    const struct rawllama_strings * column, const int64_t * rows, int64_t n, int64_t * offsets) {
    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        offsets[i + 1] = offsets[i] + text_of(column, rows[i]).size;
    }
    const bool in_order = column->layout != RAWLLAMA_UTF8_VIEW && !column->index_size;
    return n > 0 && in_order && rows[n - 1] - rows[0] == n - 1 ? text_of(column, rows[0]).data : NULL;
}

int64_t rawllama_strings_copy(const struct rawllama_strings * column, const int64_t * rows, int64_t n, char * target) {
    int64_t size = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct text text = text_of(column, rows[i]);
        if (text.size) {  // an empty one may have no memory
            memcpy(target + size, text.data, (size_t) text.size);
        }
        size += text.size;
    }
    return size;
}

static uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

static uint64_t hash_of(struct text text, uint64_t seed) {
    uint64_t hash = mix(seed, (uint64_t) text.size);
    for (; text.size > 0; text.size -= 8, text.data += 8) {
        uint64_t word = 0;
        memcpy(&word, text.data, text.size < 8 ? (size_t) text.size : 8);
        hash = mix(hash, word);
    }
    return mix(hash, seed);
}

// Text i of all `n` columns.
static struct text text_of_all(const struct rawllama_strings * columns, const int64_t * starts, int64_t n, int64_t i) {
    int64_t low = 0;
    while (n > 1) {
        const int64_t half = n / 2;
        low += starts[low + half] <= i ? half : 0;
        n -= half;
    }
    return text_of(columns + low, i - starts[low]);
}

static bool are_equal(struct text a, struct text b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, (size_t) a.size) == 0);
}

// The place of the first text that is equal to the one at `place`, which is entered if there is none. An entry of the
// table is the upper bits of a text's hash and, in the stead of the bits that chose its slot, the text's place.
static int64_t first_place(const struct rawllama_strings * columns, const int64_t * starts, int64_t n_columns,
                           struct text text, int64_t place, uint64_t hash, uint64_t * table, uint64_t mask) {
    uint64_t slot = hash & mask;
    for (; table[slot] != UINT64_MAX; slot = (slot + 1) & mask) {
        const int64_t other = (int64_t) (table[slot] & mask);
        if ((table[slot] ^ hash) <= mask && are_equal(text, text_of_all(columns, starts, n_columns, other))) {
            return other;
        }
    }
    table[slot] = (hash & ~mask) | (uint64_t) place;
    return place;
}

void rawllama_strings_first_places(
    const struct rawllama_strings * columns,
                    const int64_t * starts,
                          int64_t   n_columns,
                         uint64_t   seed,
                         uint64_t * table,
                          int32_t   bits,
                          int64_t * places) {
    const uint64_t mask = ((uint64_t) 1 << bits) - 1;
    for (int64_t column = 0; column < n_columns; column++) {
        for (int64_t i = 0; i < columns[column].n; i++) {
            const struct text text  = text_of(columns + column, i);
            const int64_t     place = starts[column] + i;
            places[place] =
                first_place(columns, starts, n_columns, text, place, hash_of(text, seed), table, mask);
        }
    }
}

void rawllama_arrow_release_array(struct rawllama_arrow_array * array) {
    if (array->release) {
        array->release(array);
    }
}

void rawllama_arrow_release_schema(struct rawllama_arrow_schema * schema) {
    if (schema->release) {
        schema->release(schema);
    }
}
