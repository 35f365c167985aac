#!/bin/sh
. /etc/profile.d/layerize.sh
exec "$@"
