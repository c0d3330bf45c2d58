#include "runtime/supervisor/doctor.h"

#include <errno.h>
#include <json-c/json.h>

#include "runtime/base/error.h"
#include "runtime/supervisor/walls.h"

void doctor_print_text(FILE *file, const struct wall_list *walls)
{
        for (size_t i = 0; i < walls->n_walls; i++) {
                const struct wall *wall = &walls->walls[i];

                (void)fprintf(file, "%-8s %-18s %s\n",
                              wall->holds         ? "holds"
                              : wall->is_required ? "MISSING"
                                                  : "weak",
                              wall->name, wall->detail);
                if (!wall->holds)
                        (void)fprintf(file, "         %-18s -> %s\n", "", wall->fix);
        }
}

static struct json_object *wall_to_json(const struct wall *wall)
{
        struct json_object *object = json_object_new_object();

        if (!object)
                return NULL;
        (void)json_object_object_add(object, "name", json_object_new_string(wall->name));
        (void)json_object_object_add(object, "holds", json_object_new_boolean(wall->holds));
        (void)json_object_object_add(object, "required",
                                     json_object_new_boolean(wall->is_required));
        (void)json_object_object_add(object, "detail", json_object_new_string(wall->detail));
        (void)json_object_object_add(object, "fix", json_object_new_string(wall->fix));
        return object;
}

int doctor_print_json(FILE *file, const struct wall_list *walls)
{
        struct json_object *root = json_object_new_object();
        struct json_object *list = json_object_new_array();

        if (!root || !list) {
                json_object_put(root);
                json_object_put(list);
                return error_origin(-ENOMEM);
        }
        for (size_t i = 0; i < walls->n_walls; i++)
                (void)json_object_array_add(list, wall_to_json(&walls->walls[i]));
        (void)json_object_object_add(root, "ok", json_object_new_boolean(!walls_missing(walls)));
        (void)json_object_object_add(root, "walls", list);
        (void)fprintf(file, "%s\n",
                      json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE));
        json_object_put(root);
        return 0;
}
