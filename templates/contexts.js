window.atlasContexts?.({{ texts | tojson }});
