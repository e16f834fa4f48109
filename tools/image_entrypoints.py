"""How the images of `debian_images` start: scripts and configurations after the official pattern.

Each starts as root, gives the data folder to the service's user, and goes on as that user; who
starts one as that user already skips this. What matters for a policy is which calls are made,
in which order, on files of whom.
"""

POSTGRES = """#!/usr/bin/env bash
set -Eeuo pipefail

own_the_data() {
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA" || true
  mkdir -p /var/run/postgresql || true
  chmod 03775 /var/run/postgresql || true
  if [ "$(id -u)" = 0 ]; then
    find "$PGDATA" ! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql ! -user postgres -exec chown postgres '{}' +
  fi
}

make_the_database() {
  : "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    POSTGRES_PASSWORD="$(< "$POSTGRES_PASSWORD_FILE")"
  fi
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE" >&2
    exit 1
  fi
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\\n' "$POSTGRES_PASSWORD") \\
    --auth-host=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
  if [ "$POSTGRES_DB" != postgres ]; then
    psql --no-psqlrc -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres \\
      -c "CREATE DATABASE \\"$POSTGRES_DB\\""
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case "$script" in
      *.sh) . "$script" ;;
      *.sql) psql --no-psqlrc -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$script" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
}

if [ "${1:0:1}" = - ]; then
  set -- postgres "$@"
fi
if [ "$1" = postgres ]; then
  own_the_data
  if [ "$(id -u)" = 0 ]; then
    exec gosu postgres "$BASH_SOURCE" "$@"
  fi
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    make_the_database
  fi
  # Connections from other containers; the packaged default is localhost only.
  set -- "$@" -c "listen_addresses=*" -c "unix_socket_directories=/var/run/postgresql"
fi
exec "$@"
"""

REDIS = """#!/bin/sh
set -e
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
  set -- redis-server "$@"
fi
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
fi
if [ "$1" = redis-server ]; then
  umask 0077
  set -- "$@" --protected-mode no
fi
exec "$@"
"""

NGINX = """#!/bin/sh
set -e
for script in /docker-entrypoint.d/*.sh; do
  if [ -x "$script" ]; then
    "$script"
  fi
done
exec "$@"
"""

NGINX_CONF = """user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    client_body_temp_path /var/cache/nginx/client_temp;
    proxy_temp_path /var/cache/nginx/proxy_temp;
    fastcgi_temp_path /var/cache/nginx/fastcgi_temp;
    uwsgi_temp_path /var/cache/nginx/uwsgi_temp;
    scgi_temp_path /var/cache/nginx/scgi_temp;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
"""

#: Everything that is written lies below /tmp.
NGINX_CONF_UNPRIVILEGED = (
    NGINX_CONF.removeprefix("user nginx;\n")
    .replace("/run/nginx.pid", "/tmp/nginx.pid")  # noqa: S108 - an image's, not ours
    .replace("/var/cache/nginx/", "/tmp/")  # noqa: S108 - an image's, not ours
)

NGINX_DEFAULT = """server {
    listen 80;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
"""

MARIADB = """#!/usr/bin/env bash
set -eo pipefail
DATA=/var/lib/mysql
# Either prefix is understood, as by the official image.
for name in ROOT_PASSWORD ROOT_PASSWORD_FILE DATABASE; do
  mysql="MYSQL_$name" mariadb="MARIADB_$name"
  export "$mariadb=${!mariadb:-${!mysql}}"
done

make_the_database() {
  if [ -n "$MARIADB_ROOT_PASSWORD_FILE" ]; then
    MARIADB_ROOT_PASSWORD="$(< "$MARIADB_ROOT_PASSWORD_FILE")"
  fi
  if [ -z "$MARIADB_ROOT_PASSWORD" ]; then
    echo "set MARIADB_ROOT_PASSWORD or MARIADB_ROOT_PASSWORD_FILE" >&2
    exit 1
  fi
  mariadb-install-db --datadir="$DATA" --auth-root-authentication-method=normal \\
    --skip-test-db --cross-bootstrap >/dev/null
  {
    echo "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
    echo "FLUSH PRIVILEGES;"
    echo "CREATE USER 'root'@'%' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';"
    echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';"
    if [ -n "$MARIADB_DATABASE" ]; then
      echo "CREATE DATABASE \\`$MARIADB_DATABASE\\`;"
    fi
  } | mariadbd --bootstrap --datadir="$DATA"
}

if [ "${1:0:1}" = - ]; then
  set -- mariadbd "$@"
fi
if [ "$1" = mariadbd ]; then
  if [ "$(id -u)" = 0 ]; then
    find "$DATA" ! -user mysql -exec chown mysql: '{}' +
    find /run/mysqld ! -user mysql -exec chown mysql: '{}' +
    exec gosu mysql "$BASH_SOURCE" "$@"
  fi
  if [ ! -d "$DATA/mysql" ]; then
    make_the_database
  fi
fi
exec "$@"
"""

#: Only what `healthcheck.sh --connect` asks: whether the server answers over TCP.
MARIADB_HEALTHCHECK = """#!/usr/bin/env bash
said="$(mariadb --protocol=tcp --host=127.0.0.1 --execute='SELECT 1' 2>&1)" && exit 0
[[ "$said" == *"Access denied"* ]]
"""

MARIADB_CONF = """[mariadbd]
datadir = /var/lib/mysql
socket = /run/mysqld/mysqld.sock
pid-file = /run/mysqld/mysqld.pid
skip-name-resolve
[client]
socket = /run/mysqld/mysqld.sock
"""

RABBITMQ = """#!/usr/bin/env bash
set -euo pipefail
if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
  if [ "$1" = rabbitmq-server ]; then
    find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq '{}' +
  fi
  exec gosu rabbitmq "$BASH_SOURCE" "$@"
fi
exec "$@"
"""

PROMETHEUS_CONF = """global:
  scrape_interval: 15s
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["localhost:9090"]
"""
